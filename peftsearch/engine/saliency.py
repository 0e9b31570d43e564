"""Scores of methods by block, which estimate their benefit from gradients of a few batches, without training.

A superset of all methods is put into the backbone, every method on every block. The saliency of a pair is the square
root of the expected squared norm of the loss's gradient with respect to the pair's parameters (the trace of the
empirical Fisher information, as FishMask uses it, arXiv 2111.09839), over a few batches.

Saliencies are not comparable across methods: a bias moves all inputs alike and has a large gradient at first, LoRA
starts from a random projection and has a small one, and neither says how far training would get; learning rates differ
too. A score is therefore a saliency divided by the method's mean over the blocks: it says where a method acts best, not
which method is best, and factors common to all of a method's gradients (learning rate, scale) cancel out.

At first only the halves that start at zero (LoRA's B, the adapter's W_up) have a gradient. Methods that leave the
output unchanged share one pass; every other method (prefix) gets its own pass, since its random start would change the
gradients of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from statistics import mean

import torch
from torch import Tensor, nn

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.load import LoadedBackbone, reset_head
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.engine.loop import forward
from peftsearch.engine.priming import prime
from peftsearch.injection.inject import Injection, inject
from peftsearch.methods import get_method
from peftsearch.methods.abilities import count_placed, is_placed, sharing_key

N_BATCHES = 8
"""Number of training batches that a study spends on its scores."""
PROBE_SIZE = 4
"""Size of the probes (rank, width, length), or a method's largest size if that is smaller."""


def measure(
    loaded: LoadedBackbone,
    methods: Iterable[str],
    batches: list[dict[str, Tensor]],
    *,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    device: torch.device,
    autocast: torch.dtype | None = None,
) -> dict[tuple[str, int, str], float]:
    """Score every method on every block; the model is left unchanged.

    Args:
        loaded: The backbone.
        methods: Names of methods that can act on every block.
        batches: At least one, with `labels` `(batch,)`.
        loss_of: Loss of logits and labels.
        seed: Seed of the head and of the probes.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.

    Returns:
        Non-negative scores by stack, block and method; each method has mean 1.
    """
    assert batches, "scores need data"
    names = list(methods)
    exact = [name for name in names if get_method(name).exact_at_init]
    passes = ([exact] if exact else []) + [[name] for name in names if name not in exact]
    squares: dict[tuple[str, int, str], float] = {}
    for together in passes:
        with inject(loaded.model, _superset(together, loaded.backbone), loaded.backbone, seed=seed) as injection:
            reset_head(loaded.model, loaded.backbone, seed)
            prime(loaded.model, batches, loss_of=loss_of, device=device, autocast=autocast)
            loaded.model.eval()  # no dropout
            for batch in batches:
                logits, labels = forward(loaded.model, batch, device, autocast)
                loss_of(logits.float(), labels).backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
                for pair, square in _squared_norms(injection).items():
                    squares[pair] = squares.get(pair, 0.0) + square / len(batches)
                loaded.model.zero_grad(set_to_none=True)
    return _relative({pair: square**0.5 for pair, square in squares.items()})


def _superset(names: list[str], backbone: Backbone) -> Architecture:
    placements: list[Placement] = []
    seen: set[Hashable] = set()
    for block in backbone.blocks:
        for name in names:
            method = get_method(name)
            if not is_placed(method, block, backbone.blocks[0]):
                continue
            size = min(PROBE_SIZE, method.max_size(block))
            together = sharing_key(method, block.stack, 0)
            n_params = count_placed(method, block, size, together not in seen)
            seen.add(together)
            placements.append(
                Placement(stack=block.stack, block=block.index, method=name, size=size, n_params=n_params)
            )
    return Architecture(placements=tuple(placements))


def _squared_norms(injection: Injection) -> dict[tuple[str, int, str], float]:
    """The squared norm of each placement's gradient; 0 if it is not finite or the loss does not depend on it."""
    found = {}
    for p in injection.architecture.placements:
        module: nn.Module = injection.injected[p.key]
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        square = sum(float(g.double().square().sum()) for g in gradients)
        found[p.stack, p.block, p.method] = square if square < float("inf") else 0.0
    return found


def _relative(saliencies: dict[tuple[str, int, str], float]) -> dict[tuple[str, int, str], float]:
    """Divide each saliency by its method's mean over the blocks."""
    means = {method: mean(s for pair, s in saliencies.items() if pair[2] == method) for _, _, method in saliencies}
    return {pair: s / means[pair[2]] if means[pair[2]] > 0 else 0.0 for pair, s in saliencies.items()}
