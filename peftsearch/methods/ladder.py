"""Ladder side-tuning: a small network beside the backbone that reads its hidden states (arXiv 2206.06522).

Sec. 3.1: s_i = g_i((1 - mu_i) down_i(h_i) + mu_i s_(i-1)) with a learned gate mu_i = sigma(alpha_i) (the paper's
temperature is 1 here), from the embeddings on, and the last side state goes back to the backbone's width: h_L +
up(s_L). Only the side network is passed by gradients: hidden states are taken without theirs, so no activation of the
backbone is kept for it. A side block g_i is a residual two-layer network of the side width r (the paper's is a
transformer block cut down to r: attention among side states is left out). It acts once on a model. The size is r; with
L blocks, (L + 1) (d r + r) for the maps down, L (2 r^2 + 2 r + 1) for the side blocks and gates, and d r + d for the
map up, which starts at zero: the output is unchanged at init. It does not merge.

Left out: side blocks initialised by pruning the backbone, and dropping of side blocks (sec. 3.2, 3.3); models of two
stacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.method import Attachment


class Side(nn.Module):
    """The side network: hooks on the first block's input and on every block's output."""

    def __init__(self, hidden_size: int, width: int, n_blocks: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Linear(hidden_size, width) for _ in range(n_blocks + 1)])
        self.first = nn.ModuleList([nn.Linear(width, width) for _ in range(n_blocks)])
        self.second = nn.ModuleList([nn.Linear(width, width) for _ in range(n_blocks)])
        self.gate = nn.Parameter(torch.zeros(n_blocks))
        self.up = nn.Linear(width, hidden_size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.states: dict[int, torch.Tensor] = {}
        """Side states `(batch, seq, r)` of the last forward by the number of blocks passed."""

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start from the embeddings, the first block's input `(batch, seq, d)`."""
        hidden: torch.Tensor = args[0] if args else kwargs["hidden_states"]
        self.states[0] = self.down[0](hidden.detach().to(self.up.weight.dtype))

    def climb(self, index: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """One rung: read block `index`'s output `(batch, seq, d)`; behind the last block the side state is added."""
        hidden: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
        opened = torch.sigmoid(self.gate[index])
        read = self.down[index + 1](hidden.detach().to(self.up.weight.dtype))
        mixed = (1 - opened) * read + opened * self.states[index]
        state = mixed + self.second[index](functional.gelu(self.first[index](mixed)))
        if index + 1 < len(self.gate):
            self.states[index + 1] = state
            return output
        added = hidden + self.up(state).to(hidden.dtype)
        return added if isinstance(output, torch.Tensor) else (added, *output[1:])

    def __getstate__(self) -> dict[str, Any]:
        """Copies have no states: those of a forward belong to its graph."""
        return {**self.__dict__, "states": {}}

    def forget(self) -> None:
        """Let go of the last forward's states."""
        self.states.clear()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """A side network along all blocks, once a model."""

    name: str = "ladder"
    paper: str = "2206.06522, sec. 3.1"
    places: str = "beside all blocks, once a model"
    lr_scale: float = 3.0
    knob: str = "width"
    merges: bool = False
    changes: str = "none (added)"
    exact_at_init: bool = True
    model_wide: Literal[True] = True

    def obstacle(self, block: Block) -> str | None:
        """It needs a model of one stack, and blocks of their own."""
        if block.n_uses > 1:
            return f"{block.path} is run {block.n_uses} times, which leaves no rungs; use adapter or lora there"
        if block.words is not None:
            return None
        return f"{block.path} is in a model of two stacks or without words; use adapter or lora there"

    def max_size(self, block: Block) -> int:
        """The hidden size: a wider side network is no side network."""
        return block.hidden_size

    def count(self, block: Block, size: int) -> int:
        """(L + 2) d r + d, and (L + 1) r + L (2 r^2 + 2 r + 1)."""
        n, d = _n_blocks(block), block.hidden_size
        return (n + 2) * d * size + d + (n + 1) * size + n * (2 * size * size + 2 * size + 1)

    def changed(self, block: Block, size: int) -> int:
        """What it adds; the backbone stays as it is."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The side width: `r=4`."""
        return f"r={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a side network of width `size` along all blocks."""
        assert block.words is not None, "the obstacle was looked at"
        stack, _, _ = block.words.last_block.rpartition(".")
        blocks = list(model.get_submodule(stack).children())
        side = Side(block.hidden_size, size, len(blocks))
        handles: list[Any] = [blocks[0].register_forward_pre_hook(side.enter, with_kwargs=True)]
        handles += [each.register_forward_hook(partial(side.climb, i)) for i, each in enumerate(blocks)]
        return Attachment(module=side, undo=[*(handle.remove for handle in handles), side.forget])


def _n_blocks(block: Block) -> int:
    return 0 if block.words is None else int(block.words.last_block.rpartition(".")[2]) + 1
