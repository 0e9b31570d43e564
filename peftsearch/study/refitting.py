"""Carry a found design over to another model, depth or budget: search small, train large."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.architecture import Architecture
from peftsearch.design.budget import Budget, parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.errors import ConfigError
from peftsearch.study.best import Found, Source, read_found

if TYPE_CHECKING:
    from torch import nn


def refit(
    best: Source, model: nn.Module | Backbone, budget: Budget | str | int, design: str | None = None
) -> Architecture:
    """Carry a found design over to another backbone and size it for a new budget.

    The design keeps its groups, allocation and methods. It loses its fixed sizes and its share of the search's budget,
    so that it may use the whole given budget. A design with one group per block (AutoPEFT's space) is carried over by
    relative depth: block j of m gets the methods and allocation of block floor((j + 1/2) n / m) of n.

    Args:
        best: A run's folder, its `best.yaml`, or the mapping in that file.
        model: The model, or its anatomy.
        budget: Limit on the trainable parameters, excluding the task head: `0.1%`, `22.7k`, a number.
        design: Name of a confirmed design other than the pick: `trial 14`, `lora`.

    Returns:
        An architecture for `inject`.

    Raises:
        BudgetError: The budget cannot be read, or the design does not fit into it.
        MethodError: A method of the design cannot act on this backbone.
        ConfigError: `best` cannot be read, the backbone has fewer blocks than the design has groups, or no tuned block
            remains.
    """
    found = read_found(best, design)
    if not isinstance(model, Backbone):
        from peftsearch.backbone.detect import detect

        model = detect(model)
    if not isinstance(budget, Budget):
        budget = parse_budget(str(budget), model.n_params)
    return carry_over(found, model, budget)


def carry_over(found: Found, model: Backbone, budget: Budget) -> Architecture:
    """Size what a search found for another backbone and budget, as `refit` does.

    Raises:
        BudgetError: The design does not fit into the budget.
        MethodError: A method of the design cannot act on this backbone.
        ConfigError: The backbone has fewer blocks than the design has groups, or no tuned block remains.
    """
    carried = replace(found.design, sizes=(), budget_share=1.0)
    if carried.grouping == "uniform" and len(carried.methods) == sum(found.stacks.values()):
        carried = _by_depth(carried, len(model.blocks))
        if found.design.tunable and not carried.tunable:
            raise ConfigError(f"{found.where}: none of the blocks that it tunes is left on {len(model.blocks)} blocks")
    return fit(carried, model, budget)


def _by_depth(design: Design, n_blocks: int) -> Design:
    n = len(design.methods)
    sources = [(2 * j + 1) * n // (2 * n_blocks) for j in range(n_blocks)]
    return replace(
        design,
        methods=tuple(design.methods[i] for i in sources),
        allocation=tuple(design.allocation[i] for i in sources),
    )
