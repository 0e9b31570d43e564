"""Priming: before training, some methods select the weights to train by the gradients of a few batches.

FishMask (arXiv 2111.09839), FAR (2205.01541) and SparseAdapter (2210.04284) look at the data once; their modules are
`Primed`, and all of them are primed in the same passes. The model is in evaluation mode meanwhile: there is no dropout,
and no random number is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from peftsearch.engine.loop import forward
from peftsearch.errors import Diverged, MethodError
from peftsearch.injection.inject import NAME, injection_of
from peftsearch.methods.abilities import Primed

N_BATCHES = 8
"""Number of training batches that priming uses."""


def needs_priming(model: nn.Module) -> bool:
    """Whether the architecture in a model selects weights by data."""
    injected = getattr(model, NAME, None)
    return injected is not None and any(isinstance(module, Primed) for module in injected.modules())


def prime(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    *,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    device: torch.device | None = None,
    autocast: torch.dtype | None = None,
) -> None:
    """Let the injected methods select the weights to train; does nothing if no method needs it.

    Args:
        model: A model with an architecture in it, with the head that training starts from.
        batches: Training batches with `labels`; the first `N_BATCHES` are used.
        loss_of: Loss of logits and labels.
        device: Where the model is; None takes that of its first parameter.
        autocast: Reduced precision of the forward pass, or None.

    Raises:
        MethodError: The model carries no architecture, or there are no batches.
        Diverged: A loss is not finite; nothing is selected then.
    """
    modules = [module for module in injection_of(model).injected.modules() if isinstance(module, Primed)]
    if not modules:
        return
    device = next(model.parameters()).device if device is None else device
    training = model.training
    model.eval()
    n_seen = 0
    try:
        for module in modules:
            module.watch()
        for batch, _ in zip(batches, range(N_BATCHES), strict=False):
            logits, labels = forward(model, batch, device, autocast)
            loss = loss_of(logits.float(), labels)
            if not bool(torch.isfinite(loss)):
                value = float(loss.detach())
                raise Diverged(f"the loss is {value} before training, while methods select the weights to train")
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
            for module in modules:
                module.record()
            n_seen += 1
        if not n_seen:
            raise MethodError("prime: there are no batches; give at least one with labels")
        for module in modules:
            module.choose()
    finally:
        for module in modules:
            module.drop()
        model.zero_grad(set_to_none=True)
        model.train(training)
