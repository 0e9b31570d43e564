"""Exports to HF peft: its `from_pretrained`, without peftsearch, gives the trained model's logits, or it is refused."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import peftsearch
from peftsearch.exporter.peft_krona import first_factor
from tests.exports import Run, close, logits, refused
from tests.tiny import tiny_input

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),  # peft asks by the old name
    pytest.mark.filterwarnings("ignore:Unsupported layer type .*Norm"),  # what it says of its own LayerNorm tuning
    pytest.mark.filterwarnings("ignore:Position ids are not supported"),  # it counts them by the mask
]


def read(run, folder, **options):
    """What HF peft makes of an exported folder, on the backbone as it is on the disk."""
    base = AutoModelForSequenceClassification.from_pretrained(run.model)
    return peft.PeftModel.from_pretrained(base, folder, **options)


@pytest.mark.parametrize(
    ("family", "biases"),
    [
        ("bert", (0, 1, 3, 2)),
        ("roberta", (0, 0, 0, 0)),
        ("distilbert", (3, 0, 0, 3)),
        ("electra", (0, 0, 0, 0)),
        ("gpt2", (0, 1, 3, 2)),
        ("opt", (0, 1, 0, 0)),
        ("llama", (0, 0, 0, 0)),
    ],
)
def test_peft_loads_lora_of_any_ranks_with_biases_and_head(family, biases, tmp_path, capsys):
    run = Run(tmp_path, family, lora=(1, 0, 3, 2), **({"bitfit": biases} if any(biases) else {}))
    run.export("peft", tmp_path / "out")
    close(logits(read(run, tmp_path / "out")), run.logits[1000])
    assert "same logits to" in capsys.readouterr().out
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    fused = family == "gpt2"
    assert len(config["target_modules"]) == (3 if fused else 6)
    assert sorted({config["r"], *config["rank_pattern"].values()}) == ([2, 4, 6] if fused else [1, 2, 3])
    assert config["use_rslora"]
    assert config["bias"] == ("all" if any(biases) else "none")


def test_biases_of_lora_maps_alone_train_on_alone(tmp_path):
    run = Run(tmp_path, lora=(1, 2, 0, 1), bitfit=(1, 1, 0, 0))
    run.export("peft", tmp_path / "out")
    model = read(run, tmp_path / "out", is_trainable=True)
    close(logits(model), run.logits[1000])
    assert model.peft_config["default"].bias == "lora_only"
    model.save_pretrained(tmp_path / "again")
    close(logits(read(run, tmp_path / "again")), run.logits[1000])


FAMILIES = ["bert", "distilbert", "electra", "deberta", "gpt2", "gpt_neox", "opt", "llama", "phi3"]
NO_LOKR = {"deberta", "gpt2", "gpt_neox", "llama", "phi3"}
"""Those with fused maps, or with values narrower than queries: a test below holds what is said there."""
HELD = [
    ("LORA", {"dora": (1, 0, 3, 2)}),
    ("LORA", {"dora": (2, 2, 0, 2), "bitfit": (0, 1, 3, 2)}),
    ("IA3", {"ia3": (1, 1, 1, 1)}),
    ("IA3", {"ia3": (0, 1, 0, 0)}),
    ("LN_TUNING", {"layernorm": (1, 1, 0, 1)}),
    ("LN_TUNING", {"layernorm": (2, 1, 0, 2)}),
    ("LOKR", {"krona": (0, 2, 2, 0)}),
    ("LORA", {"lora": (1, 0, 3, 2), "layernorm": (1, 2, 0, 1), "bitfit": (3, 0, 2, 0)}),
    ("LORA", {"dora": (1, 0, 0, 1), "layernorm": (0, 1, 1, 0)}),
    ("IA3", {"ia3": (1, 0, 0, 1), "layernorm": (0, 1, 1, 0)}),
    ("LOKR", {"krona": (0, 2, 2, 0), "layernorm": (0, 1, 1, 0)}),
]
"""HF peft's name of the adapter, and sizes on the four blocks."""
CASES = [
    pytest.param(kind, sizes, family, id=f"{family}-{'+'.join(sizes)}")
    for kind, sizes in HELD
    for family in FAMILIES
    if kind != "LOKR" or family not in NO_LOKR
]


@pytest.mark.parametrize(("kind", "sizes", "family"), CASES)
def test_peft_loads_what_it_has_a_configuration_for(kind, sizes, family, tmp_path):
    run = Run(tmp_path, family, seeds=(1000,), **sizes)
    run.export("peft", tmp_path / "out")
    model = read(run, tmp_path / "out")
    close(logits(model), run.logits[1000])
    assert model.peft_config["default"].peft_type == kind


@pytest.mark.parametrize("sizes", [{"ia3": (1, 0, 1, 1)}, {"layernorm": (1, 2, 0, 1)}, {"krona": (2, 2, 0, 2)},
                                   {"dora": (1, 2, 0, 3), "bitfit": (3, 0, 1, 0)}])  # fmt: skip
def test_what_peft_loaded_trains_on_and_saves_to_the_same_files(sizes, tmp_path):
    run = Run(tmp_path, **sizes)
    run.export("peft", tmp_path / "out")
    model = read(run, tmp_path / "out", is_trainable=True)
    model.save_pretrained(tmp_path / "again")
    files = [load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("out", "again")]
    assert files[0].keys() <= files[1].keys()  # of biases it saves the untrained ones too
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())
    model.train()
    model(**tiny_input(model), labels=torch.tensor([0, 1, 0])).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("method", ["prompt", "ptuning"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "bloom"])
@torch.no_grad()
def test_a_language_model_reads_and_writes_behind_its_prompt(family, method, tmp_path):
    run = Run(tmp_path, family, kind="generation", seeds=(1000,), **{method: (3, 0, 0, 0)})
    run.export("peft", tmp_path / "out")
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(run.model), tmp_path / "out").eval()
    close(logits(model)[:, 3:], run.logits[1000])
    run.export("peftsearch", tmp_path / "own")
    ours = peftsearch.load(None, tmp_path / "own").model.eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    options = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(**options), ours.generate(**options))


@pytest.mark.parametrize(
    ("family", "sizes", "message"),
    [
        ("bert", {"krona": (2, 1, 2, 3)}, "HF peft cannot hold krona on encoder blocks 1 (its LoKr has one "
         "decompose_factor for all maps, which does not give A of 4 x 8); krona on encoder blocks 3 (its LoKr has one "
         "decompose_factor for all maps, which does not give A of 2 x 4); formats that can: merged, "
         "peftsearch"),
        ("gpt2", {"krona": (0, 2, 2, 0)}, "krona on decoder blocks 1-2 (its LoKr acts on whole nn.Linear maps, not on "
         "slices of fused ones); formats that can: merged"),
        ("deberta", {"krona": (0, 2, 2, 0)}, "krona on encoder blocks 1-2 (its LoKr acts on whole nn.Linear maps"),
        ("llama", {"krona": (0, 2, 2, 0)}, "krona on decoder blocks 1-2 (its LoKr has one "
         "decompose_factor for all maps"),
        ("bert", {"prompt": (3, 0, 0, 0)}, "prompt on encoder blocks 0 (it keeps the prompt in the input of a "
         "classifier's head, which changes the model); formats that can: peftsearch"),
        ("llama", {"prompt": (3, 0, 0, 0)}, "prompt on decoder blocks 0 (it keeps the prompt in the input"),
        ("bert", {"lora": (1, 1, 0, 0), "dora": (0, 0, 1, 0)}, "dora on encoder blocks 2 (one adapter holds one "
         "method, here lora); formats that can: merged"),
        ("bert", {"prompt": (3, 0, 0, 0), "layernorm": (0, 1, 1, 0)}, "cannot hold layernorm on encoder blocks 1-2 "
         "(one adapter holds one method, here prompt); formats that can: merged"),
    ],
)  # fmt: skip
def test_what_peft_has_no_shape_for_is_named_with_the_formats_that_can(family, sizes, message, tmp_path, capsys):
    run = Run(tmp_path, family, **sizes)
    line = refused(capsys, "export", run.path, "--format", "peft", "--output", tmp_path / "out")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("family", "equal"), [("bert", 0), ("distilbert", 0), ("modernbert", 0), ("gpt2", 1), ("llama", 1)]
)
def test_pefts_prompt_before_a_head_is_another_model(family, equal, tmp_path):
    """Why prompts on classifiers are refused: the same vectors give other logits there.

    Decoders' heads look for the last token, and without the ids HF peft's takes the last position: padded texts differ.
    """
    run = Run(tmp_path, family, seeds=(1000,), prompt=(3, 0, 0, 0))
    values = load_file(next((run.path / "confirmed").iterdir()))
    vectors = values.pop(next(name for name in values if name.endswith("_prompt.embedding")))
    base = AutoModelForSequenceClassification.from_pretrained(run.model)
    base.load_state_dict(values, strict=False)  # the head
    sizes = {"num_virtual_tokens": 3, "token_dim": 32, "num_layers": 4, "num_attention_heads": 4}
    model = peft.get_peft_model(base, peft.PromptTuningConfig(task_type="SEQ_CLS", **sizes))
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(vectors)
    differences = (logits(model) - run.logits[1000]).abs().amax(1)
    assert (differences[:equal] < 1e-5).all()
    assert (differences[equal:] > 1e-3).all()


@pytest.mark.parametrize("factor", [-1, *range(1, 25), 768])
def test_lokr_splits_dimensions_as_the_export_does(factor):
    from peft.tuners.lokr.layer import factorization

    for dimension in range(1, 513):
        theirs = factorization(dimension, factor)[0]
        assert first_factor(dimension, factor) == theirs, (
            f"peft {peft.__version__}: LoKr splits {dimension} by decompose_factor {factor} in another way; adapt "
            "exporter/peft_krona.py: first_factor"
        )
