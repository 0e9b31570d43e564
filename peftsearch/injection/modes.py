"""Training mode of a model with an architecture in it: what is trained is in it, the frozen rest need not be.

Dropout in a frozen backbone costs a fifth to a third of a step on a CPU, where it also rules out fused attention, and
small trained parts do not need it against overfitting (experiments/2026-11-26-dropout).
"""

from __future__ import annotations

from torch import nn

from peftsearch.injection.inject import NAME, Injected


def set_training(model: nn.Module, *, dropout: bool) -> None:
    """Put a model into training mode.

    Args:
        model: A model, with or without an architecture in it.
        dropout: Whether the frozen backbone drops out, too. A model without an architecture always does: its own
            weights are trained.
    """
    injected = getattr(model, NAME, None)
    if dropout or not isinstance(injected, Injected):
        model.train()
        return
    for module in model.modules():
        module.training = _needs_training(module)
    injected.train()
    for path in injected.backbone.head:
        model.get_submodule(path).train()


def _needs_training(module: nn.Module) -> bool:
    """Whether a frozen module works otherwise in evaluation: checkpointed blocks, and maps with packed weights."""
    return bool(getattr(module, "gradient_checkpointing", False)) or type(module).__module__.startswith("bitsandbytes")
