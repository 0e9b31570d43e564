"""Prompt tuning and P-tuning against HF peft, in generation, and when the encoder is dropped."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from peftsearch.backbone.detect import detect
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject, remove
from peftsearch.injection.reducing import reduce
from peftsearch.methods import METHODS
from peftsearch.methods.layers.prompt import PromptVectors
from tests.generators import CONFIGS, build
from tests.methods import disturb, make, place
from tests.tiny import tiny_input

LENGTH = 3
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks by the old name


def causal(family: str) -> Any:
    torch.manual_seed(0)
    if family == "gpt2":
        config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, eos_token_id=None, pad_token_id=0)
        return GPT2LMHeadModel(config).eval()
    if family == "opt":
        sizes = {"hidden_size": 16, "ffn_dim": 24, "word_embed_proj_dim": 16, "num_hidden_layers": 2}
        tokens = {"vocab_size": 40, "eos_token_id": None, "pad_token_id": 0}
        return OPTForCausalLM(OPTConfig(**sizes, **tokens, num_attention_heads=4)).eval()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, eos_token_id=None, pad_token_id=0,
        )
    ).eval()  # fmt: skip


def prompt_of(model: Any) -> PromptVectors:
    return next(m for m in model.modules() if isinstance(m, PromptVectors))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_equals_hf_peft(family: str) -> None:
    ids = torch.randint(1, 40, (2, 6))
    mask = torch.ones_like(ids)
    model = causal(family)
    with inject(model, place(detect(model), prompt=LENGTH)):
        disturb(model)
        ours, vectors = model(input_ids=ids, attention_mask=mask).logits, prompt_of(model).embedding.clone()
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    theirs = peft.get_peft_model(model, config)
    theirs.prompt_encoder["default"].embedding.weight.copy_(vectors)
    assert sum(p.numel() for p in theirs.prompt_encoder.parameters()) == METHODS["prompt"].count(
        detect(causal(family)).blocks[0], LENGTH
    )
    torch.testing.assert_close(ours, theirs(input_ids=ids, attention_mask=mask).logits[:, LENGTH:])


@pytest.mark.parametrize("family", sorted(set(CONFIGS) - {"bart", "t5"}))
@torch.no_grad()
def test_acts_on_language_models_of_every_family(family: str) -> None:
    """An oracle from outside: the language model itself run on embeddings with the prompt in front."""
    model = build(family)
    ids = torch.randint(4, 40, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with inject(model, place(detect(model), prompt=LENGTH)):
        disturb(model, std=1.0)
        ours, vectors = model(input_ids=ids, attention_mask=mask).logits, prompt_of(model).embedding.clone()
    embedded = torch.cat((vectors.expand(2, -1, -1), model.get_input_embeddings()(ids)), dim=1)
    both = torch.cat((torch.ones(2, LENGTH, dtype=torch.long), mask), dim=1)
    torch.testing.assert_close(ours, model(inputs_embeds=embedded, attention_mask=both).logits[:, LENGTH:])
    assert (ours - model(input_ids=ids, attention_mask=mask).logits).abs().max() > 1e-3


@torch.no_grad()
def test_ptuning_equals_hf_pefts_perceptron() -> None:
    ids, model = torch.randint(1, 40, (2, 6)), causal("gpt2")
    with inject(model, place(detect(model), ptuning=LENGTH)):
        disturb(model)
        ours, state = model(input_ids=ids).logits, prompt_of(model).state_dict()
        state = {key: value.clone() for key, value in state.items()}
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, encoder_reparameterization_type="MLP", encoder_hidden_size=16
    )
    theirs = peft.get_peft_model(model, config)
    encoder = theirs.prompt_encoder["default"]
    encoder.embedding.weight.copy_(state["embedding"])
    for i in (0, 2, 4):
        for part in ("weight", "bias"):
            getattr(encoder.mlp_head[i], part).copy_(state[f"encoder.{i}.{part}"])
    assert sum(p.numel() for p in encoder.parameters()) == METHODS["ptuning"].count(detect(model).blocks[0], LENGTH)
    torch.testing.assert_close(ours, theirs(input_ids=ids).logits[:, LENGTH:])


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
@torch.no_grad()
def test_generation_with_and_without_a_cache_is_the_same(family: str) -> None:
    model = causal(family)
    inject(model, place(detect(model), prompt=LENGTH, lora=2))
    disturb(model, std=1.0)
    ids = torch.randint(1, 40, (2, 6))
    ids[1, :2] = 0  # padded on the left
    options = {"attention_mask": (ids > 0).long(), "max_new_tokens": 8, "do_sample": False}
    with_cache = model.generate(ids, use_cache=True, **options)
    assert torch.equal(with_cache, model.generate(ids, use_cache=False, **options))
    plain = ids
    for _ in range(8):  # a loop that knows no generation
        mask = torch.cat((options["attention_mask"], torch.ones(2, plain.shape[1] - 6, dtype=torch.long)), dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        following = model(input_ids=plain, attention_mask=mask, position_ids=positions).logits[:, -1].argmax(-1)
        plain = torch.cat((plain, following[:, None]), dim=1)
    assert torch.equal(with_cache, plain)
    remove(model)


@pytest.mark.parametrize("name", ["ptuning", "prefix_mlp"])
@torch.no_grad()
def test_the_encoder_is_dropped_and_the_output_stays(name: str) -> None:
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inject(model, place(detect(model), **{name: 4, "lora": 2}))
    disturb(model)
    model.classifier.weight += 1
    expected = model(**tiny_input(model)).logits
    architecture = reduce(model)
    torch.testing.assert_close(model(**tiny_input(model)).logits, expected)
    smaller = METHODS[name].becomes  # type: ignore[attr-defined]  # see `Reducible`
    assert {p.method for p in architecture.placements} == {smaller, "lora"}
    block = detect(model).blocks[0]
    own = next(p for p in architecture.placements if p.method == smaller)
    assert own.n_params == METHODS[name].changed(block, 4) == METHODS[smaller].count(block, 4)
    assert reduce(model) == architecture
    remove(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@torch.no_grad()
def test_the_first_token_is_still_the_first_for_the_pooler() -> None:
    """An oracle from outside: the stack run on embeddings with the prompt in front, then the pooler on the text."""
    model = make()
    inputs = tiny_input(model)
    with inject(model, place(detect(model), prompt=LENGTH)):
        disturb(model)
        ours, vectors = model(**inputs).logits, prompt_of(model).embedding.clone()
    embedded = model.bert.embeddings.word_embeddings(inputs["input_ids"])
    embedded = torch.cat((vectors.expand(3, -1, -1), embedded), dim=1)
    mask = torch.cat((torch.ones(3, LENGTH, dtype=torch.long), inputs["attention_mask"]), dim=1)
    hidden = model.bert(inputs_embeds=embedded, attention_mask=mask).last_hidden_state[:, LENGTH:]
    torch.testing.assert_close(ours, model.classifier(model.bert.pooler(hidden)))


@pytest.mark.parametrize("name", ["prompt", "ptuning"])
def test_masks_that_a_prompt_cannot_lengthen_are_refused(name):
    model = build("llama")
    with inject(model, place(detect(model), **{name: 2})):
        ids = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 10]])
        with pytest.raises(MethodError, match="a static cache has neither"):
            model.generate(input_ids=ids, max_new_tokens=2, cache_implementation="static")


def test_padding_that_pushes_the_prompt_out_of_a_window_is_refused():
    model = build("mistral")  # attends to 8 tokens
    with inject(model, place(detect(model), prompt=2)):
        ids, mask = torch.arange(4, 14).repeat(2, 1), torch.ones(2, 10, dtype=torch.long)
        assert model(input_ids=ids, attention_mask=mask).logits.shape[1] == 10
        mask[1, :3] = 0
        with pytest.raises(MethodError, match="attends to the last 8 tokens"):
            model(input_ids=ids, attention_mask=mask)
