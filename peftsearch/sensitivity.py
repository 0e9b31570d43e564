"""How much a method on a block would help, from gradients of a few batches and without training.

A superset of all methods is put into the backbone, every method on every block. A score has to be comparable across
methods, of which one has two thousand parameters with a tenfold learning rate and another a hundred. Adam's first steps
move every parameter by its rate, whatever the size of its gradient; so to first order a step of base rate lr decreases
the loss by

    lr * lr_scale(method) * sum_i sign(g_i) G_i

with g the gradient that the step sees and G that of unseen data. g and G come from two halves of the batches, each
half in both roles: noise that would make |g| large cancels. Divided by lr and by the square root of the number of
parameters (see `peftsearch.knapsack`), this is the score. It is a saliency in the sense of SNIP (arXiv 1810.02340: the
effect on the loss of what is switched on), with Adam's step in place of the weight.

The halves that start at zero (LoRA's B, the adapter's W_up) alone have a gradient at first; the other halves count
among the parameters, as they cost the budget the same. Methods that leave the output as it is share one pass; each
other method (prefix) has a pass of its own, since its random start would change the gradients of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt

import torch
from torch import Tensor, nn

from peftsearch.architecture import Architecture, Placement
from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.load import LoadedBackbone, reset_head
from peftsearch.injection import inject
from peftsearch.methods import METHODS
from peftsearch.training import forward

N_BATCHES = 8
"""Training batches that a study spends on its scores."""
PROBE_SIZE = 4
"""Rank, width or length of the probes, or the largest size below; of BitFit's subsets the largest."""


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
    """Score every method on every block; the model is left as it was.

    Args:
        loaded: The backbone.
        methods: Names of methods that can act on every block.
        batches: An even number of at least two, with `labels` `(batch,)`.
        loss_of: Loss of logits and labels.
        seed: Of the head and of the probes.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.

    Returns:
        Score by stack, block and method; at least 0.
    """
    assert batches, "scores need data"
    assert len(batches) % 2 == 0, "gradients are held against each other, half against half"
    names = list(methods)
    exact = [name for name in names if METHODS[name].exact_at_init]
    passes = ([exact] if exact else []) + [[name] for name in names if name not in exact]
    scores: dict[tuple[str, int, str], float] = {}
    for together in passes:
        architecture = _superset(together, loaded.backbone)
        with inject(loaded.model, architecture, loaded.backbone, seed=seed) as injection:
            reset_head(loaded.model, loaded.backbone, seed)
            loaded.model.eval()  # no dropout
            halves = [
                _gradients(loaded.model, injection.injected, part, loss_of, device, autocast)
                for part in (batches[::2], batches[1::2])
            ]
            for p in architecture.placements:
                module = f"{p.stack}_{p.block}_{p.method}."
                pairs = [(halves[0][name], halves[1][name]) for name in halves[0] if name.startswith(module)]
                decrease = sum(_shared_decrease(a, b) for a, b in pairs)
                scores[p.stack, p.block, p.method] = max(0.0, METHODS[p.method].lr_scale * decrease / sqrt(p.n_params))
    return scores


def _superset(names: list[str], backbone: Backbone) -> Architecture:
    placements = []
    for block in backbone.blocks:
        for name in names:
            size = min(PROBE_SIZE, METHODS[name].max_size(block))
            n_params = METHODS[name].count(block, size)
            placements.append(
                Placement(stack=block.stack, block=block.index, method=name, size=size, n_params=n_params)
            )
    return Architecture(placements=tuple(placements))


def _gradients(
    model: nn.Module,
    injected: nn.Module,
    batches: list[dict[str, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    autocast: torch.dtype | None,
) -> dict[str, Tensor]:
    """The mean gradient of every injected parameter, by name; parameters that the loss does not reach have zeros."""
    model.zero_grad(set_to_none=True)
    for batch in batches:
        logits, labels = forward(model, batch, device, autocast)
        loss = loss_of(logits.float(), labels) / len(batches)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for name, p in injected.named_parameters()
    }
    model.zero_grad(set_to_none=True)
    return found


def _shared_decrease(a: Tensor, b: Tensor) -> float:
    """What a step by the signs of one half decreases the loss of the other, the mean of both roles; 0 if not finite."""
    both = 0.5 * ((a.sign() * b).sum() + (b.sign() * a).sum())
    return float(torch.nan_to_num(both, nan=0.0, posinf=0.0, neginf=0.0))
