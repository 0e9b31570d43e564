"""The vectors of a prompt and the hooks that insert and remove them; `peftsearch.methods.prompt` names the paper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import torch
from torch import nn
from transformers import StaticCache
from transformers.utils import ModelOutput

from peftsearch.backbone.anatomy import Block
from peftsearch.backbone.load import n_positions
from peftsearch.errors import MethodError
from peftsearch.methods.layers.attachment import Attachment

_STATIC = (
    "a prompt in front of the text needs an attention mask (batch, seq) and a cache that grows, and a static cache has "
    "neither: generate with the default cache, and without cache_implementation"
)


class FrontTokens(nn.Module, ABC):
    """Embeddings in front of the input, and the hooks that insert and remove them."""

    def __init__(self, words: nn.Embedding, length: int) -> None:
        super().__init__()
        self.__dict__["words"] = words  # bypasses nn.Module's registration: it belongs to the backbone
        self.length = length
        self.n_positions: int | None = None
        """Number of tokens that the model has positions for; None where there is no limit."""
        self.window: int | None = None
        """Number of tokens that the model attends to; None for all."""
        self.is_inside = False
        """Whether the last forward carried the prompt in its hidden states."""

    @abstractmethod
    def vectors(self) -> torch.Tensor:
        """The prompt `(l, e)`."""

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Put the prompt in front of the base model's input; the hook on the base model's call."""
        args, kwargs = _named(args, kwargs)
        past = kwargs.get("past_key_values")
        if isinstance(past, StaticCache):
            raise MethodError(_STATIC)
        self.is_inside = past is None or past.get_seq_length() == 0
        embedded = kwargs.get("inputs_embeds")
        if embedded is None:
            embedded = self.__dict__["words"](kwargs["input_ids"])  # (batch, seq, e)
        n_examples, seq = embedded.shape[:2]
        if self.is_inside and self.n_positions is not None and self.length + seq > self.n_positions:
            raise MethodError(
                f"a prompt of {self.length} and a text of {seq} tokens exceed the model's {self.n_positions} "
                "positions: shorten the texts with --max-length, or give a smaller budget"
            )
        if (mask := kwargs.get("attention_mask")) is not None:
            self._check_mask(mask, self.length + seq)
            kwargs["attention_mask"] = torch.cat((mask.new_ones(n_examples, self.length), mask), dim=1)
        if not self.is_inside:
            for name in ("position_ids", "cache_position"):
                if kwargs.get(name) is not None and not self._counts(kwargs[name], past, seq):
                    kwargs[name] = kwargs[name] + self.length
            return args, kwargs
        prompt = self.vectors().to(embedded.dtype).expand(n_examples, -1, -1)
        kwargs["inputs_embeds"], kwargs["input_ids"] = torch.cat((prompt, embedded), dim=1), None
        if (types := kwargs.get("token_type_ids")) is not None:
            kwargs["token_type_ids"] = torch.cat((types.new_zeros(n_examples, self.length), types), dim=1)
        if (positions := kwargs.get("position_ids")) is not None:
            front = torch.arange(self.length, device=positions.device).expand(positions.shape[0], -1)
            kwargs["position_ids"] = torch.cat((front, positions + self.length), dim=1)
        if (cached := kwargs.get("cache_position")) is not None:
            front = torch.arange(self.length, device=cached.device)
            kwargs["cache_position"] = torch.cat((front, cached + self.length))
        return args, kwargs

    def _check_mask(self, mask: Any, n_tokens: int) -> None:
        """Refuse masks that cannot be made longer, or under which the prompt would be seen from some rows alone.

        Raises:
            MethodError: The mask is not `(batch, seq)`, or padding on the left pushes the prompt out of a window.
        """
        if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
            raise MethodError(_STATIC)
        if self.window is not None and n_tokens > self.window and not bool(mask[:, 0].all()):
            raise MethodError(
                f"the model attends to the last {self.window} tokens, and padding on the left pushes the prompt out of "
                "them in the shorter rows alone: generate rows of one length, or one at a time"
            )

    def _counts(self, positions: torch.Tensor, past: Any, seq: int) -> bool:
        """Whether positions already count the cached prompt: the last is then that of all tokens so far."""
        n_seen: int = past.get_seq_length() + seq
        return int(positions.max()) + 1 >= n_seen

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Remove the prompt from the hidden states `(batch, l + seq, d)` that a block or the base model returns."""
        if not self.is_inside:  # not reset below: gradient checkpointing computes the last block once more
            return output
        if isinstance(output, torch.Tensor):
            return output[:, self.length :]
        if isinstance(output, ModelOutput):
            output["last_hidden_state"] = output["last_hidden_state"][:, self.length :]
            return output
        return (output[0][:, self.length :], *output[1:])


class PromptVectors(FrontTokens):
    """The trained embeddings."""

    def __init__(self, words: nn.Embedding, length: int) -> None:
        super().__init__(words, length)
        sampled = torch.randint(words.num_embeddings, (length,))
        start = words.weight.detach().to("cpu", torch.float32)[sampled]
        self.embedding = nn.Parameter(start.clone())

    def vectors(self) -> torch.Tensor:
        """The prompt `(l, e)`."""
        return self.embedding


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """All arguments by name; transformers' models call their base model with names, except for the words."""
    if not args:
        return args, dict(kwargs)
    return (), {"input_ids": args[0], **dict(zip(("attention_mask",), args[1:], strict=False)), **kwargs}


def attach(model: nn.Module, block: Block, length: int) -> Attachment:
    """Put a prompt in front of the model's input."""
    return attach_prompt(model, block, PromptVectors(words_of(model, block), length))


def attach_prompt(model: nn.Module, block: Block, prompt: FrontTokens) -> Attachment:
    """Put a prompt of any kind in front of the model's input."""
    return Attachment(module=prompt, undo=enter_and_leave(model, block, prompt))


def words_of(model: nn.Module, block: Block) -> nn.Embedding:
    """The word embeddings of the model that a block is part of."""
    assert block.words is not None, "the obstacle was checked"
    words = model.get_submodule(block.words.path)
    assert isinstance(words, nn.Embedding), "detection checked it"
    return words


def _window(model: Any) -> int | None:
    """Tokens that a model with a sliding window attends to; None for all."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    return window if isinstance(window, int) and getattr(config, "use_sliding_window", True) else None


def enter_and_leave(model: nn.Module, block: Block, module: FrontTokens) -> list[Callable[[], object]]:
    """Hook a prompt on the base model's call and on the module after which the prompt is removed.

    In an encoder it is removed after the last block, since a pooler follows inside the base model; in a decoder at the
    end of the base model, where GPT-2 counts the tokens it was given.

    The base model is here the innermost module that contains both words and blocks: OPT's language model calls the
    decoder inside its base model and never the base model itself.

    Returns:
        Calls that remove the hooks.
    """
    assert block.words is not None, "the obstacle was checked"
    paths = zip(block.words.path.split("."), block.words.last_block.split("."), strict=False)
    base: Any = model.get_submodule(".".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], paths)))
    exit_ = base if block.attention.causal else model.get_submodule(block.words.last_block)
    module.n_positions = n_positions(model)
    module.window = _window(model)
    enters = base.register_forward_pre_hook(module.enter, with_kwargs=True)
    handles = (enters, exit_.register_forward_hook(module.leave))
    return [handle.remove for handle in handles]
