"""The anatomy of a backbone: what its blocks are made of, as plain data that needs no torch.

A `Backbone` holds one stack of blocks (encoder or decoder) or two (encoder-decoder, with cross-attention in the
second). Everything that counts parameters or fits a design works on these types alone; `detect` makes them from
a loaded transformers model, `describe` from a mapping written by hand.
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
    """First output index of the slice in the module's output (in each piece of it); 0 for a map of its own."""
    d_module: int = 0
    """Output width of the whole module; 0 means `d_out` (a map of its own)."""
    n_pieces: int = 1
    """In how many equal pieces of the module's output the slice lies: the heads, where the query, key and value of
    each stand side by side (GPT-NeoX, BLOOM); 1 where the slice is whole."""
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
    """Length of its gain."""
    bias: bool
    """Whether it has a bias (LayerNorm) or not (RMSNorm)."""


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
    """Query heads."""
    n_kv_heads: int
    """Key and value heads; fewer than `n_heads` under grouped-query attention."""
    head_dim: int
    """Width of one head."""
    causal: bool
    """Whether a token sees only what stands before it."""
    interface: bool
    """Whether the module goes through transformers' AttentionInterface (what prefix tuning needs)."""

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
class Words:
    """Where a model of one stack looks up its words, and where what came of them leaves the stack."""

    path: str
    """Dotted path of the word embeddings."""
    width: int
    """Width of one embedding; in some families (ELECTRA) not the hidden size."""
    last_block: str
    """Dotted path of the stack's last block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One transformer block."""

    stack: str
    """Name of its stack: `encoder` or `decoder`."""
    index: int
    """Position in its stack, from 0 (nearest to the input)."""
    path: str
    """Dotted module path from the model's root."""
    hidden_size: int
    attention: Attention
    ffn: FeedForward
    norms: tuple[Norm, ...] = ()
    cross_attention: Attention | None = None
    """Set in the decoder of an encoder-decoder model."""
    words: Words | None = None
    """The model's words, the same in all blocks; None in models of two stacks and of other inputs."""
    n_uses: int = 1
    """How often a forward pass runs it: more than once where layers share it (ALBERT)."""

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """Self-attention, and cross-attention where there is one."""
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
    """A run of blocks of one kind."""

    name: Literal["encoder", "decoder"]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """A pretrained model as the search sees it."""

    name: str
    """What the user called it: a hub id or a folder."""
    model_type: str
    """transformers' own name of the family: `bert`, `llama`, ..."""
    n_params: int
    """Parameters of the backbone, the task head apart; shared weights count once, packed ones by their real number."""
    stacks: tuple[Stack, ...]
    revision: str = ""
    """Commit hash of a hub model, or a fingerprint of a local folder's weights; empty when unknown."""
    head: tuple[str, ...] = field(default=())
    """Paths of the head's modules (`classifier`): what is trained beside the budget."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all stacks, input side first."""
        return tuple(block for stack in self.stacks for block in stack.blocks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The parameters of a model with its head, as far as their storage goes."""

    n_params: int
    """All of them; shared ones count once."""
    maps: tuple[tuple[int, int], ...] = ()
    """Inputs and outputs of each linear map that quantisation packs: those inside the blocks."""

    @property
    def n_packed(self) -> int:
        """Weights of these maps, together."""
        return sum(d_in * d_out for d_in, d_out in self.maps)
