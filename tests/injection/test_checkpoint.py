"""A found architecture in a user's own code: injected from a file, saved, loaded, and refused where it does not fit."""

import pickle
import subprocess
import sys

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

import peftsearch
from peftsearch.backbone.detect import detect
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.errors import CheckpointError, ConfigError, MethodError
from peftsearch.injection.states import state
from tests.found import best_of
from tests.methods import available, disturb, make, place
from tests.tiny import FAMILIES, tiny_input

ALL = {"lora": 2, "bitfit": 3, "adapter": 2, "prefix": 2}
TASK = {"name": "mood", "kind": "classification", "labels": ["bad", "good"], "metric": "accuracy"}


def logits(model):
    with torch.no_grad():
        return model.eval()(**tiny_input(model)).logits


def trained(family="bert", **sizes):
    """A model with an architecture in it whose values, the head's too, are off their start."""
    model = make(family)
    backbone = detect(model)
    peftsearch.inject(model, place(backbone, **(sizes or available(backbone, **ALL))))
    disturb(model)
    with torch.no_grad():
        for path in backbone.head:
            for parameter in model.get_submodule(path).parameters():
                parameter += 0.3
    return model


@pytest.fixture
def saved(tmp_path):
    peftsearch.save(trained(lora=2, bitfit=1), tmp_path / "out", task=TASK)
    return tmp_path / "out"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_save_and_a_load_round_trip_bit_for_bit(family, tmp_path):
    model = trained(family)
    peftsearch.save(model, tmp_path / "out")
    other = peftsearch.load(make(family), tmp_path / "out").model
    before, after = state(model), state(other)
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(other), logits(model))
    peftsearch.remove(other)
    assert torch.equal(logits(other), logits(make(family)))


def test_a_loaded_folder_saves_to_equal_files(saved, tmp_path):
    peftsearch.save(peftsearch.load(make(), saved).model, tmp_path / "again")
    for file in ("peftsearch.yaml", "peftsearch.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes()
    assert yaml.safe_load((saved / "peftsearch.yaml").read_text())["task"] == TASK


def test_another_process_loads_the_backbone_by_its_name(tmp_path):
    from tests.runs import save_model

    place_of_model = save_model(tmp_path / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place_of_model)
    peftsearch.inject(model, place(detect(model), **ALL))
    disturb(model)
    peftsearch.save(model, tmp_path / "out")
    code = (
        "import sys, torch, peftsearch; from tests.tiny import tiny_input; "
        "model = peftsearch.load(None, sys.argv[1]).model; "
        "torch.save(model(**tiny_input(model)).logits, sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "out", tmp_path / "logits"], check=True)
    assert torch.equal(torch.load(tmp_path / "logits"), logits(model))


def test_a_load_into_a_model_that_carries_the_architecture_sets_its_values(saved):
    model = trained(lora=2, bitfit=1)
    wanted = {name: value.clone() for name, value in state(model).items()}
    disturb(model)
    peftsearch.load(model, saved)
    assert all(torch.equal(value, wanted[name]) for name, value in state(model).items())
    with pytest.raises(CheckpointError, match="carries another architecture"):
        peftsearch.load(trained(lora=1), saved)


def test_an_output_that_exists_is_kept_unless_overwritten(saved):
    (saved / "notes.txt").write_text("mine")
    before = (saved / "peftsearch.safetensors").read_bytes()
    model = trained(lora=1)
    with pytest.raises(CheckpointError, match=r"exists and is not empty; give another folder, or --overwrite"):
        peftsearch.save(model, saved)
    assert (saved / "peftsearch.safetensors").read_bytes() == before
    peftsearch.save(model, saved, overwrite=True)
    assert torch.equal(logits(peftsearch.load(make(), saved).model), logits(model))
    assert (saved / "notes.txt").read_text() == "mine"
    with pytest.raises(CheckpointError, match="is a file; give a folder"):
        peftsearch.save(model, saved / "notes.txt", overwrite=True)
    assert [p.name for p in saved.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("family", "sizes", "mismatch"),
    [
        ("roberta", {}, "it was saved from a bert and this model is a roberta"),
        ("bert", {"num_hidden_layers": 3}, "encoder block 3, query is 32 x 32 there and missing in this model"),
        ("bert", {"intermediate_size": 48}, "encoder block 0, ffn_in0 is 64 x 32 there and 48 x 32 in this model"),
        ("bert", {"vocab_size": 98}, r"the backbone has [\d,]+ parameters there and [\d,]+ in this model"),
    ],
)
def test_another_models_folder_is_refused_by_its_first_mismatch(saved, family, sizes, mismatch):
    model = make(family)
    if sizes:
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**(model.config.to_dict() | sizes)))
    before = state_of(model)
    with pytest.raises(CheckpointError, match=f"belongs to another model: {mismatch}"):
        peftsearch.load(model, saved)
    assert same(model, before)


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    after = model.state_dict()
    return list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


def test_a_head_that_is_missing_or_of_another_size_is_named(saved):
    bare = transformers.BertModel(make().config)
    with pytest.raises(CheckpointError, match=r"holds a head \(classifier.bias\) and this BertModel has none"):
        peftsearch.load(bare, saved)
    with pytest.raises(CheckpointError, match=r"classifier.weight has shape \(2, 32\) there and \(3, 32\)"):
        peftsearch.load(FAMILIES["bert"](num_labels=3), saved)
    path = saved / "peftsearch.safetensors"
    values, facts = load_file(path), metadata(path)
    save_file({name: value for name, value in values.items() if name != "classifier.weight"}, path, facts)
    with pytest.raises(CheckpointError, match=r"its head lacks classifier\.weight"):
        peftsearch.load(make(), saved)


def metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


def damage(folder, how):
    weights = folder / "peftsearch.safetensors"
    match how:
        case "pickle":
            weights.write_bytes(pickle.dumps({"classifier.weight": [1.0]}))
        case "pickle beside":
            weights.unlink()
            (folder / "pytorch_model.bin").write_bytes(b"")
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-8])
        case "parameter":
            values, facts = load_file(weights), metadata(weights)
            del values["peftsearch.encoder_1_lora.query.a"]
            save_file(values, weights, facts)
        case "yaml":
            (folder / "peftsearch.yaml").write_text("format: [")
        case "format":
            (folder / "peftsearch.yaml").write_text("format: other/2")
        case "facts":
            (folder / "peftsearch.yaml").write_text("format: peftsearch-checkpoint/2\nmodel: {name: x}\n")
        case "empty":
            (folder / "peftsearch.yaml").unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", "peftsearch.safetensors: not a readable safetensors file"),
        ("pickle beside", "has no peftsearch.safetensors; pytorch_model.bin is a pickle, which can run code"),
        ("cut", "not a readable safetensors file"),
        ("parameter", "state: peftsearch.encoder_1_lora.query.a is missing"),
        ("yaml", "peftsearch.yaml: is damaged: .*not valid YAML"),
        ("format", "format is 'other/2', this version reads 'peftsearch-checkpoint/2'"),
        (
            "facts",
            r"is damaged: model.revision: Field required; model.model_type: Field required; .*shapes: Field required",
        ),
        ("empty", "holds no checkpoint"),
    ],
)
def test_a_damaged_folder_is_refused_and_the_model_left_alone(saved, how, message):
    damage(saved, how)
    model = make()
    before = state_of(model)
    with pytest.raises(CheckpointError, match=message) as caught:
        peftsearch.load(model, saved)
    assert "\n" not in str(caught.value)
    assert same(model, before)
    assert all(p.requires_grad for p in model.parameters())


def test_a_base_that_cannot_be_loaded_alone_is_asked_for(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"was saved from a BertForSequenceClassification without a name"):
        peftsearch.load(None, saved)
    with pytest.raises(CheckpointError, match="no such folder"):
        peftsearch.load(None, tmp_path / "nowhere")


def test_changed_weights_under_the_same_name_are_refused(tmp_path):
    from peftsearch.backbone.load import load_backbone
    from tests.runs import save_model

    loaded = load_backbone(save_model(tmp_path / "model"), num_labels=2)
    peftsearch.inject(loaded.model, place(loaded.backbone, lora=1), loaded.backbone)
    peftsearch.save(loaded.model, tmp_path / "out")
    make().save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"was trained on .* at sha256:\w+, which is sha256:\w+ now"):
        peftsearch.load(None, tmp_path / "out")


def test_what_a_search_found_goes_in_from_its_file_its_folder_or_its_mapping(tmp_path):
    model = make()
    best = best_of(detect(model), lora=2, adapter=1)
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False))
    for source in (tmp_path / "best.yaml", str(tmp_path / "best.yaml"), tmp_path, best):
        with peftsearch.inject(model, source) as injection:
            assert injection.architecture == place(detect(model), lora=2, adapter=1)
            assert injection.injected.task["labels"] == ["no", "yes"]


def test_a_find_on_another_model_is_refused_and_refit_named(tmp_path):
    best = best_of(detect(make()), lora=2)
    with pytest.raises(MethodError, match=r"found on bert with 4 encoder blocks, this model is gpt2 with 4 decoder"):
        peftsearch.inject(make("gpt2"), best)
    wide = transformers.BertConfig(**(make().config.to_dict() | {"hidden_size": 64}))
    with pytest.raises(MethodError, match="encoder block 0, lora: r=2 has 512 parameters, the architecture says 256"):
        peftsearch.inject(transformers.BertForSequenceClassification(wide), best)
    (tmp_path / "best.yaml").write_text("format: peftsearch-best/1\n")
    with pytest.raises(ConfigError, match="is damaged"):
        peftsearch.inject(make(), tmp_path / "best.yaml")
    with pytest.raises(ConfigError, match=r"is not the best\.yaml of a run"):
        peftsearch.inject(make(), {"placements": []})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no best\.yaml; the run is not finished"):
        peftsearch.inject(make(), tmp_path / "empty")


def test_refit_sizes_the_design_anew_on_another_depth_and_budget():
    small = detect(make())
    design = Design(
        grouping="spindle", allocation=(1, 2, 2, 1), methods=(("lora",), ("adapter", "lora"), (), ("lora",))
    )
    best = best_of(small, lora=1) | {"design": design.to_dict()}
    config = transformers.BertConfig(**(make().config.to_dict() | {"num_hidden_layers": 7, "hidden_size": 64}))
    deep = transformers.BertForSequenceClassification(config)
    budget = parse_budget("3%", detect(deep).n_params)
    architecture = peftsearch.refit(best, deep, "3%")
    assert architecture == fit(design, detect(deep), budget)
    assert 0.9 * budget.n_params < architecture.n_params <= budget.n_params
    with peftsearch.inject(deep, architecture):
        assert logits(deep).shape == (3, 2)
    with pytest.raises(MethodError, match="bitfit cannot act"):
        peftsearch.refit(best_of(small, bitfit=1), detect(make("llama")), 500)


def test_refit_carries_a_design_of_blocks_over_by_relative_depth():
    small = detect(make())
    design = Design(
        grouping="uniform", allocation=(1,) * 4, methods=((), ("lora",), (), ("adapter",)),
        sizes=(("lora", 2), ("adapter", 3)), budget_share=0.5,
    )  # fmt: skip
    best = best_of(small, lora=1) | {"design": design.to_dict()}
    config = transformers.BertConfig(**(make().config.to_dict() | {"num_hidden_layers": 8}))
    deep = detect(transformers.BertForSequenceClassification(config))
    placements = peftsearch.refit(best, deep, 2000).placements
    assert {(p.block, p.method) for p in placements} == {(2, "lora"), (3, "lora"), (6, "adapter"), (7, "adapter")}
    assert 1800 < sum(p.n_params for p in placements) <= 2000
    one = transformers.BertConfig(**(make().config.to_dict() | {"num_hidden_layers": 1}))
    with pytest.raises(ConfigError, match="none of the blocks that it tunes is left on 1 blocks"):
        peftsearch.refit(best, transformers.BertForSequenceClassification(one), 2000)
