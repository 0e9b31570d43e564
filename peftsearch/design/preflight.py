"""Whether a training step fits into the memory of an accelerator, and what would make it fit. Plain data, no torch.

The parts are those of `peftsearch.design.memory`, with what is trained in float32, as peftsearch keeps it. They are an
upper estimate, so a step that is said not to fit may still do so: the user is told, and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from peftsearch.backbone.anatomy import Block, Weights
from peftsearch.design.memory import ADAM_STATES, Step, hidden_state_bytes, logit_bytes, weight_bytes
from peftsearch.units import show_bytes

_PACKING = "nf4"
"""The packing that is proposed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """A training step on a device whose memory holds the model already."""

    weights: Weights
    """Counts of the model's parameters."""
    blocks: Sequence[Block]
    """The blocks that gradients flow through."""
    step: Step
    n_trained: int
    """Most parameters that are trained, the head's included."""
    n_tokens: int = 0
    """Size of the vocabulary that a generation puts out; 0 for other kinds."""
    accumulate: int = 1
    """Parts that a batch is computed in."""
    checkpointing: bool = False
    """Whether hidden states are computed again in the backward pass."""
    packed: bool = False
    """Whether the frozen weights are packed."""

    @property
    def needed(self) -> int:
        """Bytes that a step takes beside the loaded model."""
        step = replace(self.step, batch=-(-self.step.batch // self.accumulate))
        hidden = hidden_state_bytes(self.blocks, step)
        if self.checkpointing:  # the input of every block, and all of one block at a time
            inputs = sum(b.n_uses * b.hidden_size for b in self.blocks) * step.seq * step.batch * step.float_bytes
            hidden = inputs + max((hidden_state_bytes([b], step) for b in self.blocks), default=0)
        return (2 + ADAM_STATES) * 4 * self.n_trained + hidden + logit_bytes(step, self.n_tokens)

    def advice(self, free: int) -> str | None:
        """A sentence for the user if a step does not fit; None if it does.

        Args:
            free: Bytes that are free on the device, which holds the model already.
        """
        if self.needed <= free:
            return None
        told = f"a training step may need {show_bytes(self.needed)} beside the model, and {show_bytes(free)} are free"
        ways = list(self._ways(free))
        if not ways:
            return f"{told}: a smaller --batch-size or --max-length, or a smaller model, may fit"
        return f"{told}: {' or '.join(ways)} would make it fit"

    def _ways(self, free: int) -> Iterator[str]:
        """What makes the step fit, each by itself; both together where neither does."""
        parts = self._parts(free)
        if parts is not None:
            yield f"--accumulate {parts}"
        again = replace(self, checkpointing=True)
        if not self.checkpointing and again.needed <= free:
            yield "--gradient-checkpointing"
        elif not self.checkpointing and parts is None and (parts := again._parts(free)) is not None:
            yield f"--gradient-checkpointing with --accumulate {parts}"
        saved = weight_bytes(self.weights, self.step.float_bytes) - weight_bytes(
            self.weights, self.step.float_bytes, _PACKING
        )
        if not self.packed and self.needed <= free + saved:
            yield f"--quantize {_PACKING}"

    def _parts(self, free: int) -> int | None:
        """The fewest parts, a power of two times those of now, in which the batch fits."""
        parts = 2 * self.accumulate
        while parts <= self.step.batch:
            if replace(self, accumulate=parts).needed <= free:
                return parts
            parts *= 2
        return None
