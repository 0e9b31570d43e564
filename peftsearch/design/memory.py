"""What memory a training step needs, by arithmetic on the anatomy alone: no torch, no weights.

The formulas, with b bytes a float, N parameters, n trained ones, L blocks of width d, and texts of `seq` tokens:

    CUDA context    about 1 GB
    weights         b N                                     (quantised maps: see `Packing`)
    gradients       b n
    optimizer       2 b n                                   (AdamW's two moments)
    hidden states   b L (20 d seq + 3 seq^2) an example
    fp32 copies     4 n, where floats have 16 bits          (maybe: some trainers keep gradients in fp32 too)

The 20 d seq is what a block of 4 d inner width keeps for the backward pass when all of it is trained (compare arXiv
2205.05198, eq. 1: 34 bytes d seq at 16 bits, dropout masks of one byte included). The 3 seq^2 is what **one** head's
attention weights take (softmax, dropout and its mask), and so no model's true figure: fused attention (`sdpa`) keeps
none of them, eager attention those of all heads. `Step.n_stored` says which is counted.

Left out: the hidden states outside the blocks (embeddings, pooler, the logits of a language model), what the methods
themselves keep, the second attention of a decoder that reads an encoder, kernels' temporaries, and what the allocator
rounds up.
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
"""CUDA and cuDNN themselves, about."""
ADAM_STATES = 2
"""Numbers that AdamW keeps for a parameter."""
FLOATS = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a float by its name."""
Attention = Literal["documented", "fused", "eager"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One training step."""

    batch: int
    """Examples."""
    seq: int
    """Tokens of each."""
    float_bytes: int = 4
    """Of a float, all through."""
    attention: Attention = "documented"
    """Whose attention weights are counted: one head's, none, or all heads'."""

    def n_stored(self, block: Block) -> int:
        """Heads of a block whose attention weights are counted."""
        return {"documented": 1, "fused": 0, "eager": block.attention.n_heads}[self.attention]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """The parts of a training step's memory, in bytes."""

    context: int = field(default=CONTEXT_BYTES)
    """CUDA and cuDNN; nothing of it on a CPU."""
    weights: int
    gradients: int
    optimizer: int
    hidden_states: int
    fp32_copies: int
    """Of gradients at 16 bits, where a trainer keeps them; not part of the total."""

    @property
    def total(self) -> int:
        """The sum of the parts, the copies in fp32 apart: not every trainer has them."""
        return self.context + self.weights + self.gradients + self.optimizer + self.hidden_states


def weight_bytes(weights: Weights, float_bytes: int, quantize: str | None = None) -> int:
    """Bytes of all parameters.

    Args:
        weights: How many there are.
        float_bytes: Of a parameter that is not packed.
        quantize: Name of a packing; None packs nothing.
    """
    if quantize is None:
        return float_bytes * weights.n_params
    packed = sum(PACKINGS[quantize].n_bytes(d_in, d_out) for d_in, d_out in weights.maps)
    return float_bytes * (weights.n_params - weights.n_packed) + packed


def hidden_state_bytes(blocks: Sequence[Block], step: Step) -> int:
    """What blocks keep of a forward pass for the backward pass: b L (20 d seq + 3 seq^2) an example.

    A block that several layers share keeps it once a layer.
    """
    an_example = sum(b.n_uses * (20 * b.hidden_size * step.seq + 3 * step.n_stored(b) * step.seq**2) for b in blocks)
    return step.float_bytes * step.batch * an_example


BESIDE = ("ladder",)
"""Methods whose gradients do not pass the backbone."""


def blocks_passed(architecture: Architecture, backbone: Backbone) -> tuple[Block, ...]:
    """The blocks that gradients pass: from the first tuned one on; autograd keeps nothing of those before.

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
) -> Memory:
    """Estimate a training step.

    Args:
        weights: The model's parameters.
        blocks: Those that gradients pass.
        step: Batch, length and precision.
        n_trained: Trained parameters, the head's included.
        n_added: Those among them that the model itself does not have.
        quantize: Packing of the model's linear maps.
    """
    return Memory(
        weights=weight_bytes(weights, step.float_bytes, quantize) + step.float_bytes * n_added,
        gradients=step.float_bytes * n_trained,
        optimizer=ADAM_STATES * step.float_bytes * n_trained,
        hidden_states=hidden_state_bytes(blocks, step),
        fp32_copies=4 * n_trained if step.float_bytes < 4 else 0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLimit:
    """A limit on memory, held against what a design needs for certain: weights, gradients and optimizer states.

    Hidden states are not counted: their formula is an upper estimate, and what it alone forbids may well fit. So
    nothing is refused that would keep the limit, and what is not refused may still exceed it when it is measured.
    """

    limit: int
    """Bytes."""
    model_bytes: int
    """Of the loaded model's parameters and buffers."""
    n_head: int
    """Trained parameters of the head."""

    def certain(self, n_added: int) -> int:
        """Bytes that methods of so many parameters, which are fp32 as the head's are, need whatever the batch."""
        return self.model_bytes + 4 * n_added + (1 + ADAM_STATES) * 4 * (n_added + self.n_head)

    @property
    def room(self) -> int:
        """The most parameters that methods may add; below zero where the model alone exceeds the limit."""
        return (self.limit - self.certain(0)) // (self.certain(1) - self.certain(0))

    def obstacle(self, n_added: int) -> str | None:
        """Say why methods of so many parameters cannot be trained; None when they may."""
        if n_added <= self.room:
            return None
        return (
            f"its {n_added:,} parameters cannot be trained: weights, gradients and optimizer states alone take "
            f"{show_bytes(self.certain(n_added))}, --max-memory is {show_bytes(self.limit)}"
        )
