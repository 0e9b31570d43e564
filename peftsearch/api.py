"""Injection of a found architecture in a user's own code."""

from __future__ import annotations

from torch import nn

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.architecture import Architecture
from peftsearch.errors import ConfigError
from peftsearch.injection.checkpoint import identify
from peftsearch.injection.inject import Injection
from peftsearch.injection.inject import inject as inject_architecture
from peftsearch.study.best import Source, read_found, require_same_backbone


def inject(
    model: nn.Module,
    architecture: Architecture | Source,
    backbone: Backbone | None = None,
    seed: int = 0,
    design: str | None = None,
) -> Injection:
    """Freeze a model and put an architecture into it; the parameters of its head stay trainable.

    Args:
        model: A transformers model, without an architecture in it.
        architecture: An `Architecture`, a run's folder, its `best.yaml`, or the mapping in that file.
        backbone: The model's anatomy; None detects it.
        seed: Seed of the initial values; the global random generators are left unchanged.
        design: Name of a confirmed design of a run other than its pick: `trial 14`, `lora`.

    Returns:
        The injection; its `remove()` restores the model bit for bit.

    Raises:
        ConfigError: The source cannot be read.
        MethodError: The model already carries an architecture, or this one was found on another kind of model.
        BackboneError: The model is not understood.
    """
    backbone = identify(model) if backbone is None else backbone
    if isinstance(architecture, Architecture):
        if design is not None:
            raise ConfigError(
                f"design {design!r}: is one of a run; leave it out with an Architecture, which is a design"
            )
        return inject_architecture(model, architecture, backbone, seed)
    found = read_found(architecture, design)
    require_same_backbone(found, backbone)
    done = inject_architecture(model, found.architecture, backbone, seed)
    done.injected.task = found.task.head()
    return done
