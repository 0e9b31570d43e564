"""Injection of an architecture in a user's own code: one that a run found, or a mix of methods at a budget."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from torch import nn

from peftsearch.api.objects import refuse_wrapped
from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.subspace import with_subspace
from peftsearch.design.architecture import Architecture
from peftsearch.design.baselines import uniform
from peftsearch.design.budget import Budget, parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.errors import ConfigError
from peftsearch.injection.checkpoint import identify
from peftsearch.injection.inject import Injection
from peftsearch.injection.inject import inject as inject_architecture
from peftsearch.methods.support import require_methods
from peftsearch.study.best import Source, read_found, require_same_backbone
from peftsearch.study.settings import kept_subspace


def inject(
    model: nn.Module,
    architecture: Architecture | Design | Source,
    backbone: Backbone | None = None,
    seed: int = 0,
    design: str | None = None,
    *,
    budget: str | int | None = None,
    subspace: str | PathLike[str] | None = None,
) -> Injection:
    """Freeze a model and put an architecture into it; the parameters of its head stay trainable.

    Args:
        model: A transformers model, without an architecture in it.
        architecture: An `Architecture`, a run's folder, its `best.yaml`, the mapping in that file; or with a budget a
            method or a mix on all blocks (`lora`, `lora+ia3`), or a `Design`.
        backbone: The model's anatomy; None detects it.
        seed: Seed of the initial values; the global random generators are left unchanged.
        design: Name of a confirmed design of a run other than its pick: `trial 14`, `lora`.
        budget: Trainable parameters for a method, a mix or a `Design`: `0.1%`, `22.7k`, a number.
        subspace: File of `peftsearch subspace`, for the method ipt; None takes that of the backbone, or of the run.

    Returns:
        The injection; its `optimizer_groups(lr)` are for the optimizer, its `remove()` restores the model bit for bit.

    Raises:
        ConfigError: The source cannot be read, or the model is a PeftModel.
        BudgetError: The budget cannot be read, or the design does not fit.
        MethodError: The model already carries an architecture, or this one was found on another kind of model.
        BackboneError: The model is not understood, or the subspace cannot be read or is of another model.
    """
    if hasattr(model, "peft_config"):
        refuse_wrapped(model)
    backbone = identify(model) if backbone is None else backbone
    if subspace is not None:
        backbone = with_subspace(backbone, subspace)
    if design is not None and (budget is not None or isinstance(architecture, Architecture | Design)):
        raise ConfigError(
            f"design {design!r}: is one of a run; leave it out with a budget, an Architecture or a Design"
        )
    if budget is not None:
        return inject_architecture(model, _sized(architecture, backbone, budget), backbone, seed)
    if isinstance(architecture, Architecture):
        return inject_architecture(model, architecture, backbone, seed)
    if isinstance(architecture, Design) or _is_mix(architecture):
        raise ConfigError(f"{architecture}: needs a budget to size it, such as budget='0.1%'")
    found = read_found(architecture, design)
    require_same_backbone(found, backbone)
    if backbone.subspace is None and not isinstance(architecture, Mapping):
        kept = kept_subspace(Path(found.where).parent, found.architecture)
        backbone = backbone if kept is None else with_subspace(backbone, kept)
    done = inject_architecture(model, found.architecture, backbone, seed)
    done.injected.task = found.task.head()
    return done


def _is_mix(source: object) -> bool:
    """Whether a source is a name such as `lora+ia3`, and not a path."""
    from peftsearch.methods import METHODS, base_name

    return isinstance(source, str) and not Path(source).exists() and base_name(source.split("+")[0]) in METHODS


def _sized(source: object, backbone: Backbone, budget: str | int) -> Architecture:
    """A mix or a design, sized for a budget."""
    limit: Budget = parse_budget(str(budget), backbone.n_params)
    if isinstance(source, Design):
        return fit(source, backbone, limit)
    if not isinstance(source, str) or not _is_mix(source):
        raise ConfigError(
            f"{source}: has its sizes, so leave the budget out; peftsearch.refit sizes the design of a run anew"
        )
    methods = tuple(source.split("+"))
    require_methods(methods, backbone)
    return fit(uniform(*methods), backbone, limit)
