"""Anatomies without models: what counting and fitting are tested on."""

from peftsearch.backbone.anatomy import Attention, Backbone, Block, FeedForward, Norm, Projection, Stack


def bert_like(n_blocks=6, d=384, d_ff=1536, n_params=22_713_216, bias=True):
    """A BERT-shaped encoder; the default is MiniLM-L6."""
    return Backbone(
        name="bert-like",
        model_type="bert",
        n_params=n_params,
        stacks=(Stack(name="encoder", blocks=tuple(_block(i, d, d_ff, bias) for i in range(n_blocks))),),
        head=("classifier",),
    )


def _block(i, d, d_ff, bias):
    def linear(name, d_in, d_out):
        return Projection(path=f"layer.{i}.{name}", d_in=d_in, d_out=d_out, bias=bias)

    return Block(
        stack="encoder",
        index=i,
        path=f"layer.{i}",
        hidden_size=d,
        attention=Attention(
            path=f"layer.{i}.attention",
            query=linear("query", d, d),
            key=linear("key", d, d),
            value=linear("value", d, d),
            output=linear("output", d, d),
            n_heads=12,
            n_kv_heads=12,
            head_dim=d // 12,
            causal=False,
            interface=True,
        ),
        ffn=FeedForward(inputs=(linear("up", d, d_ff),), output=linear("down", d_ff, d)),
        norms=tuple(Norm(path=f"layer.{i}.norm{k}", width=d, bias=bias) for k in range(2)),
    )
