"""Derive the settings that identify a study: equal settings resume it, different ones are refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.baselines import SINGLE_METHODS
from peftsearch.design.budget import Budget
from peftsearch.design.space import Choice, DesignSpace, Dimension
from peftsearch.engine.settings import TrainingSettings
from peftsearch.files import plain
from peftsearch.methods import get_method, rank_of
from peftsearch.searcher.lengths import Lengths
from peftsearch.searcher.options import Choices, RunOptions
from peftsearch.study.settings import StudySettings
from peftsearch.study.storage import without_password

if TYPE_CHECKING:
    from peftsearch.tasks.suite import Suite

LISTED_CHOICES = 256
"""Number of choices up to which a study's settings list those of a dimension one by one."""


def study_settings(
    options: RunOptions,
    suite: Suite,
    backbone: Backbone,
    budget: Budget,
    space: DesignSpace,
    choices: Choices,
    training: TrainingSettings,
    lengths: Lengths,
    autocast: Any,
    device: Any = None,
) -> StudySettings:
    """Derive the settings that identify a study.

    Args:
        options: The options of the run.
        suite: The tasks.
        backbone: The model's anatomy.
        budget: The budget of the methods.
        space: The space, bound to the backbone.
        choices: The parsed options.
        training: Training settings, with a length that the model has positions for.
        lengths: Lengths of the trainings.
        autocast: Reduced precision of the forward pass; None for full precision.
        device: Where the model is; None where it does not matter.
    """
    return StudySettings(
        model=backbone.name,
        revision=backbone.revision,
        anatomy=_digest(backbone),
        subspace="" if backbone.subspace is None else backbone.subspace.digest,
        quantize=options.quantize,
        task=suite.name,
        task_source=suite.source,
        task_fingerprint=suite.fingerprint,
        metric=suite.metric,
        budget=budget.text,
        budget_params=budget.n_params,
        count_head=options.count_head,
        space=space.name,
        dimensions={d.name: _choices(d) for d in space.dimensions},
        rates=_rates(space),
        strategy=plain(asdict(choices.strategy)),
        training=plain(asdict(training)),
        steps=lengths.steps,
        confirm_steps=None if lengths.confirm == lengths.steps else lengths.confirm,
        rungs=lengths.rungs,
        select=choices.select,
        autocast=str(autocast).removeprefix("torch.") if autocast is not None else "none",
        objectives=tuple(objective.name for objective in choices.objectives),
        constraints=choices.constraints.to_dict(),
        deploy=options.search.deploy,
        seed=options.seed,
        threads=_threads(device),
        storage=without_password(options.study.storage),
    )


def _threads(device: Any) -> int | None:
    """The threads that trainings on a CPU use."""
    import torch

    return torch.get_num_threads() if device is not None and device.type == "cpu" else None


def _rates(space: DesignSpace) -> dict[str, float]:
    """Factors of the methods on the base learning rate, since they change how the same design trains."""
    named = {*getattr(space, "methods", ()), *SINGLE_METHODS}
    return {name: get_method(name).lr_scale for name in sorted(named, key=rank_of)}


def _choices(dimension: Dimension) -> list[Choice] | str:
    """The choices, or their number and a digest if there are many (such as subsets of twenty methods)."""
    if len(dimension.choices) <= LISTED_CHOICES:
        return list(dimension.choices)
    digest = hashlib.sha256(json.dumps(dimension.choices).encode()).hexdigest()[:16]
    return f"{len(dimension.choices)} choices, sha256:{digest}"


def _digest(backbone: Backbone) -> str:
    """Digest that distinguishes anatomies, since the same model may be described by hand in several ways."""
    stacks = asdict(backbone)["stacks"]
    for block in (block for stack in stacks for block in stack["blocks"] if block["words"] is not None):
        del block["words"]["subspace"]  # a setting of its own
    text = json.dumps(stacks, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
