"""The anatomy of a backbone: the structure of its blocks as plain data, without torch.

A `Backbone` holds one stack of blocks (encoder or decoder) or two (encoder-decoder, with cross-attention in the
second). All code that counts parameters or fits a design works on these types alone; `detect` makes them from a loaded
transformers model, `describe` from a user's description.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """One linear map of a block, or a slice of the outputs of a fused one."""

    path: str
    """Dotted module path from the model's root: `bert.encoder.layer.0.attention.self.query`."""
    d_in: int
    """Input width."""
    d_out: int
    """Output width of this projection (of the slice, where the map is fused)."""
    start: int = 0
    """First output index of the slice in the module's output, or in each piece of it; 0 for an unfused map."""
    d_module: int = 0
    """Output width of the whole module; 0 means `d_out` (an unfused map)."""
    n_pieces: int = 1
    """Number of equal pieces of the module's output over which the slice is spread: the heads, where a map is fused
    head by head (GPT-NeoX, BLOOM); 1 for a contiguous slice."""
    bias: bool = True
    """Whether the module has a bias."""

    @property
    def fused(self) -> bool:
        """Whether the module computes more than this projection."""
        return self.d_module not in (0, self.d_out)


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """One normalisation layer of a block."""

    path: str
    """Dotted module path from the model's root."""
    width: int
    """Length of the gain."""
    bias: bool
    """Whether the norm has a bias (LayerNorm) or not (RMSNorm)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """One attention of a block: self-attention, or cross-attention of a decoder."""

    path: str
    """Dotted path of the module that calls the attention function."""
    query: Projection
    key: Projection
    value: Projection
    output: Projection
    n_heads: int
    """Number of query heads."""
    n_kv_heads: int
    """Number of key and value heads; fewer than `n_heads` in grouped-query attention."""
    head_dim: int
    """Width of one head."""
    causal: bool
    """Whether a token sees only itself and earlier tokens."""
    interface: bool
    """Whether the module uses transformers' AttentionInterface, which prefix tuning needs."""

    @property
    def d_kv(self) -> int:
        """Width of all keys of one token: kv heads x head width."""
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedForward:
    """The feed-forward network of a block."""

    inputs: tuple[Projection, ...]
    """The maps from the hidden width to the inner width: one, or gate and up (gate first) in a gated network."""
    output: Projection
    """The map from the inner width back to the hidden width."""

    @property
    def d_ff(self) -> int:
        """Inner width."""
        return self.output.d_in


@dataclass(frozen=True, kw_only=True, slots=True)
class Subspace:
    """Facts of a file with directions in the space of a model's prompts; see `backbone.subspace`."""

    path: str
    """Absolute path of the file."""
    digest: str
    """`sha256:` and 16 hex digits, over the file."""
    length: int
    """Number of tokens of a prompt."""
    n_directions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """The places where words enter and leave the stack of a single-stack model."""

    path: str
    """Dotted path of the word embeddings."""
    width: int
    """Width of an embedding, which differs from the hidden size in some families (ELECTRA)."""
    last_block: str
    """Dotted path of the stack's last block."""
    subspace: Subspace | None = None
    """Directions that prompts may be tuned in, where the user has given some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One transformer block."""

    stack: str
    """Name of the stack: `encoder` or `decoder`."""
    index: int
    """Position in the stack, from 0 (nearest to the input)."""
    path: str
    """Dotted module path from the model's root."""
    hidden_size: int
    attention: Attention
    ffn: FeedForward
    norms: tuple[Norm, ...] = ()
    cross_attention: Attention | None = None
    """Cross-attention, in the decoder of an encoder-decoder model only."""
    words: Words | None = None
    """The model's words, the same in all blocks; None in models with two stacks or with other inputs than words."""
    n_uses: int = 1
    """Number of times that a forward pass runs the block: more than one where layers share it (ALBERT)."""

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """Self-attention, then cross-attention where there is one."""
        return (self.attention,) if self.cross_attention is None else (self.attention, self.cross_attention)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All linear maps in the order in which they act: q, k, v, o of each attention, then the feed-forward."""
        maps: list[Projection] = []
        for attention in self.attentions:
            maps += [attention.query, attention.key, attention.value, attention.output]
        return (*maps, *self.ffn.inputs, self.ffn.output)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A sequence of blocks of one kind."""

    name: Literal["encoder", "decoder"]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """The anatomy of a pretrained model."""

    name: str
    """The user's name for the model: a hub id or a folder."""
    model_type: str
    """transformers' name of the family: `bert`, `llama`, ..."""
    n_params: int
    """Parameters excluding the task head; shared weights count once, packed ones by their real number."""
    stacks: tuple[Stack, ...]
    revision: str = ""
    """Commit hash of a hub model, or a fingerprint of a local folder's weights; empty when unknown."""
    head: tuple[str, ...] = field(default=())
    """Paths of the head's modules (`classifier`), which are trained outside the budget."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all stacks, input side first."""
        return tuple(block for stack in self.stacks for block in stack.blocks)

    @property
    def subspace(self) -> Subspace | None:
        """Directions that prompts may be tuned in, where the user has given some."""
        words = self.blocks[0].words
        return None if words is None else words.subspace

    @property
    def depths(self) -> dict[str, int]:
        """Number of blocks of each stack, by its name."""
        return {stack.name: len(stack.blocks) for stack in self.stacks}


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Counts of a model's parameters, including the head, for storage estimates."""

    n_params: int
    """Number of all parameters; shared ones count once."""
    maps: tuple[tuple[int, int], ...] = ()
    """Input and output width of each linear map that quantisation packs, which are those inside the blocks."""

    @property
    def n_packed(self) -> int:
        """Total number of weights in the packed maps."""
        return sum(d_in * d_out for d_in, d_out in self.maps)
