"""The anatomy of the embedded model, MiniLM-L6, as plain data.

With it, commands that only count need neither torch nor the model's files. `tests/backbone/test_demo.py` compares it
with the result of `detect` on the model itself.
"""

from __future__ import annotations

from peftsearch.backbone.anatomy import Attention, Backbone, Block, FeedForward, Norm, Projection, Stack, Words

DEMO = "minilm"
"""Name of the embedded model."""
N_BLOCKS, WIDTH, INNER_WIDTH, N_HEADS = 6, 384, 1536, 12
N_PARAMS = 22_713_216
"""Parameters, excluding a task head."""


def demo_backbone() -> Backbone:
    """The anatomy of MiniLM-L6 with a sequence-classification head."""
    blocks = tuple(_block(i) for i in range(N_BLOCKS))
    return Backbone(
        name=DEMO,
        model_type="bert",
        n_params=N_PARAMS,
        stacks=(Stack(name="encoder", blocks=blocks),),
        head=("classifier",),
    )


def _block(index: int) -> Block:
    path = f"bert.encoder.layer.{index}"
    attention = f"{path}.attention.self"
    return Block(
        stack="encoder",
        index=index,
        path=path,
        hidden_size=WIDTH,
        attention=Attention(
            path=attention,
            query=Projection(path=f"{attention}.query", d_in=WIDTH, d_out=WIDTH),
            key=Projection(path=f"{attention}.key", d_in=WIDTH, d_out=WIDTH),
            value=Projection(path=f"{attention}.value", d_in=WIDTH, d_out=WIDTH),
            output=Projection(path=f"{path}.attention.output.dense", d_in=WIDTH, d_out=WIDTH),
            n_heads=N_HEADS,
            n_kv_heads=N_HEADS,
            head_dim=WIDTH // N_HEADS,
            causal=False,
            interface=True,
        ),
        ffn=FeedForward(
            inputs=(Projection(path=f"{path}.intermediate.dense", d_in=WIDTH, d_out=INNER_WIDTH),),
            output=Projection(path=f"{path}.output.dense", d_in=INNER_WIDTH, d_out=WIDTH),
        ),
        norms=(
            Norm(path=f"{path}.attention.output.LayerNorm", width=WIDTH, bias=True),
            Norm(path=f"{path}.output.LayerNorm", width=WIDTH, bias=True),
        ),
        words=Words(
            path="bert.embeddings.word_embeddings", width=WIDTH, last_block=f"bert.encoder.layer.{N_BLOCKS - 1}"
        ),
    )
