"""Loss terms of methods: DiffPruning's penalty (arXiv 2012.07463) and AdaMix's consistency loss (2205.12410)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from peftsearch.injection.inject import NAME


def extra_loss(model: nn.Module, logits: Tensor, again: Callable[[], Tensor]) -> Tensor | None:
    """The loss that the injected methods add to a training step; None where they add nothing.

    Args:
        model: A model in training mode, with or without an architecture in it.
        logits: Logits `(batch, num_labels)` of the step's forward; token logits of a generation get no consistency
            loss.
        again: Computes the logits of the same batch once more; called only where a method draws at random.

    Returns:
        A loss `()`.
    """
    injected = getattr(model, NAME, None)
    if injected is None:
        return None
    parts: list[Tensor] = [module.penalty() for module in injected.penalised]
    if injected.routes and logits.dim() == 2:
        parts.append(consistency(logits.float(), again().float()))
    return torch.stack([part.to(logits.device) for part in parts]).sum() if parts else None


def consistency(first: Tensor, second: Tensor) -> Tensor:
    """Mean of the Kullback-Leibler divergences of two predictions in both directions (2205.12410, eq. 6).

    With a single output, as in regression, it is the mean squared difference.

    Args:
        first: Logits `(batch, num_labels)`.
        second: Logits of the same examples.

    Returns:
        A loss `()`.
    """
    if first.shape[1] == 1:
        return functional.mse_loss(first, second)
    a, b = first.log_softmax(dim=1), second.log_softmax(dim=1)
    return (
        functional.kl_div(a, b, reduction="batchmean", log_target=True)
        + functional.kl_div(b, a, reduction="batchmean", log_target=True)
    ) / 2
