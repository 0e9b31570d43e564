"""Prefix tuning against a key-value cache that holds the prefix, against attention written out, and at generation."""

from __future__ import annotations

import dataclasses

import peft
import pytest
import torch
from torch import nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import PreTrainedModel

from peftsearch.backbone.detect import detect
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject, remove
from peftsearch.methods.layers.prefix import PrefixVectors, extend_mask
from peftsearch.methods.prefix import Prefix
from peftsearch.methods.support import find_obstacle
from tests.methods import disturb, make, place
from tests.tiny import FAMILIES, TEXT_FAMILIES, outline, tiny_input

LENGTH = 3
PREFIXED = [family for family in FAMILIES if find_obstacle("prefix", outline(family)) is None]


def tiny_llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, eos_token_id=None, pad_token_id=0,
        )
    ).eval()  # fmt: skip


def tiny_gpt2() -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=64, eos_token_id=None, pad_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


CAUSAL = {"llama": tiny_llama, "gpt2": tiny_gpt2}


@pytest.fixture(params=[(name, kind) for name in CAUSAL for kind in ("sdpa", "eager")], ids="-".join)
def causal(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A causal language model with a disturbed prefix in it."""
    torch.manual_seed(0)
    name, implementation = request.param
    model = CAUSAL[name]()
    model.set_attn_implementation(implementation)
    inject(model, place(detect(model), prefix=LENGTH))
    disturb(model, std=1.0)
    return model


def vectors(model: nn.Module, block: int, stack: str) -> PrefixVectors:
    found = model.get_submodule(f"peftsearch.{stack}_{block}_prefix")
    assert isinstance(found, PrefixVectors)
    return found


@torch.no_grad()
def test_equals_a_cache_that_holds_the_prefix(causal: PreTrainedModel) -> None:
    """The oracle is transformers' own cache: prefix tuning as 2101.00190 describes it, past activations."""
    ids = torch.randint(1, 40, (2, 7))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    ours = causal(input_ids=ids, attention_mask=mask, use_cache=False).logits
    backbone, cache = detect(causal), DynamicCache()
    for block in backbone.blocks:
        prefix = vectors(causal, block.index, block.stack)
        cache.update(prefix.keys.expand(2, -1, -1, -1), prefix.values.expand(2, -1, -1, -1), block.index)
    remove(causal)
    long_mask = torch.cat((torch.ones(2, LENGTH, dtype=mask.dtype), mask), dim=1)
    positions = torch.arange(7).expand(2, -1)
    theirs = causal(input_ids=ids, attention_mask=long_mask, position_ids=positions, past_key_values=cache).logits
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], atol=1e-5, rtol=0)


@torch.no_grad()
def test_future_does_not_reach_the_past(causal: PreTrainedModel) -> None:
    ids = torch.randint(1, 40, (1, 8))
    changed = ids.clone()
    changed[0, 5:] = (changed[0, 5:] + 7) % 39 + 1
    first, second = causal(input_ids=ids).logits, causal(input_ids=changed).logits
    torch.testing.assert_close(first[:, :5], second[:, :5], atol=1e-6, rtol=0)
    assert (first[:, 5:] - second[:, 5:]).abs().max() > 1e-3


@torch.no_grad()
def test_generation_is_the_same_with_and_without_cache(causal: PreTrainedModel) -> None:
    ids = torch.randint(1, 40, (2, 5))
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    runs = [
        causal.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=use_cache,
            output_scores=True, return_dict_in_generate=True,
        )
        for use_cache in (True, False)
    ]  # fmt: skip
    assert torch.equal(runs[0].sequences, runs[1].sequences)
    torch.testing.assert_close(torch.stack(runs[0].scores), torch.stack(runs[1].scores), atol=1e-5, rtol=0)


@torch.no_grad()
def test_equals_attention_written_out() -> None:
    """One BERT attention by hand: softmax([q K_p^T, q K^T] / sqrt(d_h)) [V_p; V] (2101.00190, sec. 4.2)."""
    model = make()
    block = detect(model).blocks[0]
    inject(model, place(detect(model), prefix=LENGTH))
    disturb(model, std=1.0)
    prefix, attention = vectors(model, 0, "encoder"), model.get_submodule(block.attention.path)
    x = torch.randn(2, 5, block.hidden_size)

    def heads(states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (block.attention.n_heads, -1)).transpose(1, 2)

    query, key, value = (heads(getattr(attention, part)(x)) for part in ("query", "key", "value"))
    key = torch.cat((prefix.keys.expand(2, -1, -1, -1), key), dim=2)
    value = torch.cat((prefix.values.expand(2, -1, -1, -1), value), dim=2)
    weights = torch.softmax(query @ key.transpose(2, 3) / block.attention.head_dim**0.5, dim=-1)
    expected = (weights @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x)[0], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_equals_cross_attention_written_out() -> None:
    """As above for the attention of BART's decoder to its encoder; the prefix of its self-attention is another."""
    model = make("bart")
    block = detect(model).blocks[-1]
    inject(model, place(detect(model), prefix=LENGTH))
    disturb(model, std=1.0)
    assert block.cross_attention is not None
    prefix, attention = vectors(model, 1, "decoder").cross, model.get_submodule(block.cross_attention.path)
    x, source = torch.randn(2, 5, 32), torch.randn(2, 7, 32)

    def heads(states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (4, -1)).transpose(1, 2)

    key = torch.cat((prefix.keys.expand(2, -1, -1, -1), heads(attention.k_proj(source))), dim=2)
    value = torch.cat((prefix.values.expand(2, -1, -1, -1), heads(attention.v_proj(source))), dim=2)
    weights = torch.softmax(heads(attention.q_proj(x)) @ key.transpose(2, 3) / 8**0.5, dim=-1)
    expected = attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, key_value_states=source)[0], expected, atol=1e-5, rtol=0)
    assert Prefix().count(block, LENGTH) == 2 * LENGTH * (32 + 32)


@pytest.mark.parametrize("family", [family for family in PREFIXED if family in TEXT_FAMILIES])
@torch.no_grad()
def test_padding_changes_nothing(family: str) -> None:
    model = make(family)
    inject(model, place(detect(model), prefix=LENGTH))
    disturb(model, std=0.5)
    pad = model.config.pad_token_id
    ids = torch.randint(5, 20, (2, 6))
    ids[:, -1] = model.config.eos_token_id  # what the heads of encoder-decoders look for
    padded = torch.cat((ids, torch.full((2, 3), pad)), dim=1)
    mask = (torch.arange(9) < 6).long().expand(2, -1)
    short = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(model(input_ids=padded, attention_mask=mask).logits, short, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("family", PREFIXED)
def test_eager_and_sdpa_agree(family: str) -> None:
    model = make(family)
    inputs, results = tiny_input(model), []
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        with inject(model, place(detect(model), prefix=LENGTH)):
            disturb(model, std=0.5)
            results.append(model(**inputs).logits)
        assert model.config._attn_implementation == implementation
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)


def test_mask_forms() -> None:
    query, key = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)
    assert extend_mask(None, 2, query, key, causal=False) is None
    assert extend_mask(None, 2, query[:, :, :1], key, causal=True) is None
    causal_mask = extend_mask(None, 2, query, key, causal=True)
    assert causal_mask is not None
    assert causal_mask[0, 0].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    additive = extend_mask(torch.full((1, 1, 3, 3), -9.0), 2, query, key, causal=True)
    assert additive is not None
    assert additive[0, 0, 0].tolist() == [0, 0, -9, -9, -9]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
def test_count_equals_peft() -> None:
    model = make()
    n_params = place(detect(model), prefix=4).n_params
    config = peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4)
    wrapped = peft.get_peft_model(model.base_model, config)
    assert wrapped.get_nb_trainable_parameters()[0] == n_params


def test_attention_without_the_interface_is_refused() -> None:
    block = detect(make()).blocks[0]
    old = dataclasses.replace(block, attention=dataclasses.replace(block.attention, interface=False))
    assert "does not use transformers' AttentionInterface" in str(Prefix().obstacle(old))


def test_other_attention_implementations_are_refused() -> None:
    model = make()
    architecture = place(detect(model), prefix=1)
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(MethodError, match="uses attention 'flash_attention_2', but prefix needs one of sdpa, eager"):
        inject(model, architecture)
    assert model.config._attn_implementation == "flash_attention_2"
    assert not hasattr(model, "peftsearch")
