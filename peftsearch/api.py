"""A found architecture in a user's own code: put into a model, saved with what was trained, and loaded again."""

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
        architecture: What to put in: an `Architecture`, a run's folder, its `best.yaml`, or the mapping in that.
        backbone: The model's anatomy; None detects it.
        seed: Seed of the initial values. The global random generators are left as they are.
        design: Name of another confirmed design of a run than its pick: `trial 14`, `lora`.

    Returns:
        The injection; its `remove()` restores the model bit for bit.

    Raises:
        ConfigError: The source cannot be read.
        MethodError: The model carries an architecture already, or this one was found on another kind of model.
        BackboneError: The model is not understood.
    """
    backbone = identify(model) if backbone is None else backbone
    if isinstance(architecture, Architecture):
        if design is not None:
            raise ConfigError(f"design {design!r}: is one of a run; an Architecture is a design with its sizes already")
        return inject_architecture(model, architecture, backbone, seed)
    found = read_found(architecture, design)
    require_same_backbone(found, backbone)
    done = inject_architecture(model, found.architecture, backbone, seed)
    done.injected.task = found.task.head()
    return done
