"""LoRA against HF peft with equal weights, and its slices of fused maps."""

from __future__ import annotations

import peft
import pytest
import torch

from peftsearch.backbone.detect import detect
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject
from peftsearch.methods.layers.lora import LowRank
from peftsearch.methods.lora import LoRA
from tests.methods import disturb, indices, make, place
from tests.tiny import tiny_input

TARGETS = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "deberta-v2": ["query_proj", "value_proj"],
    "mpnet": ["q", "v"],
    "opt": ["q_proj", "v_proj"],
    "llama": ["q_proj", "v_proj"],
    "mistral": ["q_proj", "v_proj"],
    "qwen3": ["q_proj", "v_proj"],
    "gemma": ["q_proj", "v_proj"],
    "phi": ["q_proj", "v_proj"],
    "t5": ["q", "v"],
    "bart": ["q_proj", "v_proj"],
    "vit": ["q_proj", "v_proj"],
}
"""What peft is told to act on; in T5 and BART that holds the cross-attention too."""


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
@pytest.mark.parametrize("family", TARGETS)
def test_equals_peft(family: str) -> None:
    ours = make(family)
    theirs = make(family)
    theirs.load_state_dict(ours.state_dict())
    backbone = detect(ours)
    injection = inject(ours, place(backbone, lora=4), backbone)
    disturb(ours)
    wrapped = peft.get_peft_model(
        theirs, peft.LoraConfig(r=4, lora_alpha=1, use_rslora=True, target_modules=TARGETS[family])
    )
    assert wrapped.get_nb_trainable_parameters()[0] == injection.architecture.n_params
    with torch.no_grad():
        for block in backbone.blocks:
            pairs = injection.injected[f"{block.stack}_{block.index}_lora"]
            for name, projection in LoRA().projections(block).items():
                layer = theirs.get_submodule(projection.path)
                layer.lora_A["default"].weight.copy_(pairs.get_submodule(name).a)
                layer.lora_B["default"].weight.copy_(pairs.get_submodule(name).b)
        expected = wrapped.eval()(**tiny_input(theirs)).logits
        torch.testing.assert_close(ours(**tiny_input(ours)).logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["bert", "gpt2", "phi3", "gpt_neox", "bloom", "deberta"])
def test_merged_weights_give_the_same_output(family: str) -> None:
    """Eq. 3 read as a weight: W = W_0 + scaling B A, on a map of its own and on slices of a fused one."""
    model = make(family)
    backbone = detect(model)
    with torch.no_grad(), inject(model, place(backbone, lora=2), backbone) as injection:
        disturb(model)
        hooked = model(**tiny_input(model)).logits
        pairs = dict(injection.injected.items())
    with torch.no_grad():
        for block in backbone.blocks:
            for name, p in LoRA().projections(block).items():
                pair = pairs[f"{block.stack}_{block.index}_lora"].get_submodule(name)
                assert isinstance(pair, LowRank)
                weight = model.get_submodule(p.path).weight
                weight = weight.T if family == "gpt2" else weight  # Conv1D holds (d_in, d_out)
                weight[indices(p.start, p.d_out, p.d_module, p.n_pieces)] += pair.scaling * pair.b @ pair.a
        torch.testing.assert_close(model(**tiny_input(model)).logits, hooked, atol=1e-5, rtol=0)


def test_scaling_multiplies_the_product() -> None:
    block = detect(make()).blocks[0]
    x, y = torch.randn(2, 5, block.hidden_size), torch.randn(2, 5, block.attention.query.d_out)
    pair = LowRank(block.attention.query, 2, scaling=4.0)
    torch.nn.init.normal_(pair.b)
    with torch.no_grad():
        torch.testing.assert_close(pair(torch.nn.Identity(), (x,), y), y + 4.0 * (x @ pair.a.T @ pair.b.T))


def test_targets_can_be_any_projection() -> None:
    model = make("llama")
    block = detect(model).blocks[0]
    method = LoRA(targets=("output", "ffn_in", "ffn_out"))
    assert list(method.projections(block)) == ["output", "ffn_in0", "ffn_in1", "ffn_out"]
    attachment = method.attach(model, block, 2)
    assert sum(p.numel() for p in attachment.module.parameters()) == method.count(block, 2)
    with pytest.raises(MethodError, match=r"unknown target 'q'.*known: ffn_in"):
        LoRA(targets=("q",))
