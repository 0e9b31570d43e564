"""Memory of a training step, computed from the anatomy alone: no torch, no weights.

The formulas, with b bytes per float, N parameters, n trained ones, L blocks of width d, and texts of `seq` tokens:

    CUDA context    about 1 GB
    weights         b N                                     (quantised maps: see `Packing`)
    gradients       b n
    optimizer       2 b n                                   (AdamW's two moments)
    hidden states   b L (20 d seq + 3 seq^2) per example
    logits          (b + 8) V seq per example               (V tokens of a generation; 4 more where b is 2)
    fp32 copies     4 n, where floats have 16 bits          (maybe: some trainers keep gradients in fp32 too)

A block of inner width 4 d keeps 20 d seq for the backward pass when all of it is trained (compare arXiv 2205.05198,
eq. 1: 34 bytes d seq at 16 bits, including dropout masks of one byte). The attention weights of **one** head take
3 seq^2 (softmax, dropout and its mask). That is no model's true figure: fused attention (`sdpa`) keeps none of them,
eager attention those of all heads. `Step.n_stored` gives the number of heads counted.

The logits of a generation are kept with their float32 copy, their log-probabilities and their gradient.

Left out: hidden states outside the blocks (embeddings, pooler), activations of the methods themselves, the second
attention of a decoder that reads an encoder, temporaries of kernels, and rounding by the allocator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from peftsearch.backbone.anatomy import Backbone, Block, Weights
from peftsearch.backbone.packing import PACKINGS
from peftsearch.design.architecture import Architecture
from peftsearch.units import show_bytes

CONTEXT_BYTES = 10**9
"""Approximate memory of CUDA and cuDNN themselves."""
ADAM_STATES = 2
"""Numbers that AdamW keeps per parameter."""
FLOATS = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes per float, by the name of the type."""
Attention = Literal["documented", "fused", "eager"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One training step."""

    batch: int
    """Examples per batch."""
    seq: int
    """Tokens per example."""
    float_bytes: int = 4
    """Bytes per float, for weights, gradients and activations."""
    attention: Attention = "documented"
    """Heads whose attention weights are counted: one (`documented`), none (`fused`) or all (`eager`)."""

    def n_stored(self, block: Block) -> int:
        """Number of heads of a block whose attention weights are counted."""
        return {"documented": 1, "fused": 0, "eager": block.attention.n_heads}[self.attention]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """The parts of a training step's memory, in bytes."""

    context: int = field(default=CONTEXT_BYTES)
    """CUDA and cuDNN; does not apply on a CPU."""
    weights: int
    gradients: int
    optimizer: int
    hidden_states: int
    logits: int = 0
    """Outputs of a generation, over its vocabulary."""
    fp32_copies: int
    """Copies of 16-bit gradients, which only some trainers keep; not part of the total."""

    @property
    def total(self) -> int:
        """The sum of the parts, excluding the fp32 copies, which not every trainer keeps."""
        return self.context + self.weights + self.gradients + self.optimizer + self.hidden_states + self.logits


def weight_bytes(weights: Weights, float_bytes: int, quantize: str | None = None) -> int:
    """Bytes of all parameters.

    Args:
        weights: Counts of parameters.
        float_bytes: Bytes per parameter that is not packed.
        quantize: Name of a packing; None packs nothing.
    """
    if quantize is None:
        return float_bytes * weights.n_params
    packed = sum(PACKINGS[quantize].n_bytes(d_in, d_out) for d_in, d_out in weights.maps)
    return float_bytes * (weights.n_params - weights.n_packed) + packed


def hidden_state_bytes(blocks: Sequence[Block], step: Step) -> int:
    """Bytes that blocks keep for the backward pass: b L (20 d seq + 3 seq^2) per example.

    A block that several layers share counts once per layer.
    """
    an_example = sum(b.n_uses * (20 * b.hidden_size * step.seq + 3 * step.n_stored(b) * step.seq**2) for b in blocks)
    return step.float_bytes * step.batch * an_example


def logit_bytes(step: Step, n_tokens: int) -> int:
    """Bytes of the outputs of a generation: the logits, a float32 copy, their log-probabilities and their gradient.

    Args:
        step: Batch, length and precision.
        n_tokens: Size of the vocabulary; 0 for other kinds.
    """
    return step.batch * step.seq * n_tokens * (step.float_bytes + (4 if step.float_bytes < 4 else 0) + 8)


BESIDE = ("ladder",)
"""Methods whose gradients do not flow through the backbone."""


def blocks_passed(architecture: Architecture, backbone: Backbone) -> tuple[Block, ...]:
    """The blocks that gradients flow through, from the first tuned one on; autograd keeps nothing of earlier blocks.

    A ladder reads the blocks and tunes none of them.
    """
    tuned = {(p.stack, p.block) for p in architecture.placements if p.method not in BESIDE}
    first = next((i for i, b in enumerate(backbone.blocks) if (b.stack, b.index) in tuned), len(backbone.blocks))
    return backbone.blocks[first:]


def estimate(
    weights: Weights,
    blocks: Sequence[Block],
    step: Step,
    *,
    n_trained: int,
    n_added: int = 0,
    quantize: str | None = None,
    n_tokens: int = 0,
) -> Memory:
    """Estimate the memory of a training step.

    Args:
        weights: Counts of the model's parameters.
        blocks: The blocks that gradients flow through.
        step: Batch, length and precision.
        n_trained: Number of trained parameters, including the head's.
        n_added: Number of trained parameters that are not part of the model itself.
        quantize: Packing of the model's linear maps.
        n_tokens: Size of the vocabulary that a generation puts out; 0 for other kinds.
    """
    return Memory(
        weights=weight_bytes(weights, step.float_bytes, quantize) + step.float_bytes * n_added,
        gradients=step.float_bytes * n_trained,
        optimizer=ADAM_STATES * step.float_bytes * n_trained,
        hidden_states=hidden_state_bytes(blocks, step),
        logits=logit_bytes(step, n_tokens),
        fp32_copies=4 * n_trained if step.float_bytes < 4 else 0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLimit:
    """A memory limit, compared with the least that a design needs: weights, gradients and optimizer states.

    Hidden states are not counted: their formula is an upper estimate, and a design that exceeds the limit only by it
    may well fit. So no design that would keep the limit is refused, and one that is accepted may still exceed the limit
    when measured.
    """

    limit: int
    """Limit in bytes."""
    model_bytes: int
    """Bytes of the loaded model's parameters and buffers."""
    n_head: int
    """Number of trained parameters of the head."""

    def certain(self, n_added: int) -> int:
        """Bytes needed at any batch size by methods with `n_added` parameters, which are fp32 like the head's."""
        return self.model_bytes + 4 * n_added + (1 + ADAM_STATES) * 4 * (n_added + self.n_head)

    @property
    def room(self) -> int:
        """The most parameters that methods may add; below zero where the model alone exceeds the limit."""
        return (self.limit - self.certain(0)) // (self.certain(1) - self.certain(0))

    def obstacle(self, n_added: int) -> str | None:
        """Say why methods with `n_added` parameters cannot be trained; None when they can."""
        if n_added <= self.room:
            return None
        return (
            f"its {n_added:,} parameters cannot be trained: weights, gradients and optimizer states alone take "
            f"{show_bytes(self.certain(n_added))}, --max-memory is {show_bytes(self.limit)}"
        )
