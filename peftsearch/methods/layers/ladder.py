"""The side network of ladder side-tuning; `peftsearch.methods.ladder` names the paper."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.layers.attachment import Attachment


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
        """Side states `(batch, seq, r)` of the last forward, by the number of blocks passed."""

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start from the embeddings, the first block's input `(batch, seq, d)`."""
        hidden: torch.Tensor = args[0] if args else kwargs["hidden_states"]
        self.states[0] = self.down[0](hidden.detach().to(self.up.weight.dtype))

    def climb(self, index: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Update the side state from block `index`'s output `(batch, seq, d)`; add the state after the last block."""
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
        """The attributes of a copy, without side states, which belong to the graph of a forward."""
        return {**self.__dict__, "states": {}}

    def forget(self) -> None:
        """Release the last forward's states."""
        self.states.clear()


def attach(model: nn.Module, block: Block, width: int) -> Attachment:
    """Hook a side network along all blocks of the model that a block is part of."""
    assert block.words is not None, "the obstacle was checked"
    stack, _, _ = block.words.last_block.rpartition(".")
    blocks = list(model.get_submodule(stack).children())
    side = Side(block.hidden_size, width, len(blocks))
    handles: list[Any] = [blocks[0].register_forward_pre_hook(side.enter, with_kwargs=True)]
    handles += [each.register_forward_hook(partial(side.climb, i)) for i, each in enumerate(blocks)]
    return Attachment(module=side, undo=[*(handle.remove for handle in handles), side.forget])
