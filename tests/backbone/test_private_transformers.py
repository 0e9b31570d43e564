"""The private parts of transformers that the package uses: what broke, and who uses it."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from peftsearch.backbone import private_transformers as private
from peftsearch.backbone.auto import continues_texts, fills_masks
from tests.tiny import FAMILIES, bert, deberta, llama

MASKED = {"bert", "roberta", "distilbert", "electra", "albert", "deberta", "deberta-v2", "mpnet", "modernbert", "bart"}
CAUSAL = {
    "bert", "roberta", "electra", "gpt2", "gpt_neox", "opt", "bloom", "llama", "mistral", "qwen2", "qwen3", "gemma",
    "phi", "phi3", "bart",
}  # fmt: skip


def broken(part: str, users: str) -> str:
    return f"transformers {transformers.__version__}: {part} changed; adapt private_transformers.py, used by {users}"


def test_the_commit_is_read_where_a_release_sets_it() -> None:
    config = transformers.BertConfig()
    assert private.commit_of(config) == private.commit_of(None) == ""
    config._commit_hash = "abc"
    assert private.commit_of(config) == "abc", broken("config._commit_hash", "injection/checkpoint.py: identify")


def test_the_attention_implementation_is_read() -> None:
    model, users = bert(), "backbone/outline.py: read_outline"
    for chosen in ("sdpa", "eager"):
        model.set_attn_implementation(chosen)
        assert private.attention_of(model.config) == chosen, broken("config._attn_implementation", users)
    assert private.attention_of(SimpleNamespace()) is None


def test_attentions_that_call_the_interface_are_told_from_others() -> None:
    attentions = {
        "bert": bert().bert.encoder.layer[0].attention.self,
        "llama": llama().model.layers[0].self_attn,
        "deberta": deberta().deberta.encoder.layer[0].attention.self,
    }
    found = {family: private.calls_attention_functions(type(module)) for family, module in attentions.items()}
    assert found == {"bert": True, "llama": True, "deberta": False}, broken(
        "the global name ALL_ATTENTION_FUNCTIONS in `forward` of the modelling files",
        "backbone/maps.py: uses_interface",
    )


class TestInitialise:
    users = "backbone/load.py: reset_head"

    def test_a_head_is_drawn_as_its_family_is(self) -> None:
        model, part = bert(), nn.Linear(32, 1000)
        before = part.weight.detach().clone()
        assert private.initialise(model, part), broken("PreTrainedModel._init_weights", self.users)
        told = broken("PreTrainedModel._init_weights, which drew with initializer_range 0.02,", self.users)
        assert not torch.equal(part.weight, before), told
        assert 0.019 < float(part.weight.detach().std()) < 0.021, told
        assert not part.bias.any(), told

    def test_a_deep_copy_of_a_loaded_module_is_drawn(self) -> None:
        model, part = bert(), nn.Linear(32, 10)
        part.weight._is_hf_initialized = True  # as after from_pretrained
        fresh = copy.deepcopy(part)
        assert private.initialise(model, fresh)
        told = broken("`_is_hf_initialized`, which deep copies of parameters do not have,", self.users)
        assert not torch.equal(fresh.weight, part.weight), told

    def test_a_model_of_others_says_so(self) -> None:
        part = nn.Linear(4, 4)
        before = part.weight.detach().clone()
        assert not private.initialise(nn.Sequential(part), part)
        assert torch.equal(part.weight, before)


@pytest.mark.parametrize("family", [*FAMILIES, "no-such-family", ""])
def test_the_exported_mappings_tell_what_a_family_is_trained_for(family: str) -> None:
    told = f"transformers {transformers.__version__}: MODEL_FOR_..._LM_MAPPING of {family}; used by backbone/auto.py"
    assert fills_masks(family) == (family in MASKED), told
    assert continues_texts(family) == (family in CAUSAL), told


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_a_model_that_an_adapter_was_loaded_into_says_so(tmp_path) -> None:
    from peft import LoraConfig, get_peft_model

    bert().save_pretrained(tmp_path / "plain")
    get_peft_model(bert(), LoraConfig(target_modules=["query"], r=2)).save_pretrained(tmp_path / "adapter")
    kind = transformers.AutoModelForSequenceClassification
    assert not private.has_adapter(kind.from_pretrained(tmp_path / "plain"))
    for file in (tmp_path / "adapter").glob("adapter_*"):
        file.rename(tmp_path / "plain" / file.name)
    told = broken("`_hf_peft_config_loaded`", "backbone/load.py")
    assert private.has_adapter(kind.from_pretrained(tmp_path / "plain")), told
