"""Dataset folders through the real `datasets`, and the hub out of reach."""

from __future__ import annotations

import os
import time
import urllib.request
from pathlib import Path
from typing import Any

import datasets
import pytest

os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

from peftsearch.errors import TaskError
from peftsearch.tasks.reading import hub
from peftsearch.tasks.reading.hub import Address, parse_address
from tests.tasks import load_hub, resolve_task

CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: train.parquet}
  - {split: validation, path: validation.parquet}
  - {split: test, path: test.parquet}
---
"""


@pytest.fixture(autouse=True)
def cache_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def make_split(labels: list[Any], feature: Any) -> Any:
    from datasets import Dataset, Features, Value

    features = Features({"sentence": Value("string"), "label": feature, "idx": Value("int32")})
    rows = [{"sentence": f"s{i} {label}", "label": label, "idx": i} for i, label in enumerate(labels)]
    return Dataset.from_list(rows, features=features)


def class_splits() -> dict[str, Any]:
    from datasets import ClassLabel

    names = ClassLabel(names=["negative", "positive", "never"])
    return {
        "train": make_split([0, 1, 1, 0, -1, 1], names),
        "validation": make_split([1, 0, 0], names),
        "test": make_split([-1, -1], names),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "reviews"
    path.mkdir()
    (path / "README.md").write_text(CARD)
    for split, data in class_splits().items():
        data.to_parquet(path / f"{split}.parquet")
    return path


def check_classes(task: Any) -> None:
    assert task.labels == ("negative", "positive", "never")
    assert task.train.labels == [0, 1, 1, 0, 1]
    assert task.validation.labels == [1, 0, 0]
    assert task.train.texts[0] == "s0 0"
    assert task.test is None
    assert any("train: 1 of 6 rows have no label (-1)" in note for note in task.notes)


def test_a_folder_with_a_card_and_class_names(folder: Path) -> None:
    task = load_hub(str(folder))
    check_classes(task)
    assert task.name == "reviews"
    assert task.source == f"folder {folder}"


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    from datasets import DatasetDict

    DatasetDict(class_splits()).save_to_disk(tmp_path / "saved")
    check_classes(load_hub(str(tmp_path / "saved")))
    class_splits()["train"].save_to_disk(tmp_path / "single")
    single = load_hub(str(tmp_path / "single"))
    assert (len(single.train), len(single.validation)) == (3, 2)


def test_numbers_of_their_own_keep_minus_one(tmp_path: Path) -> None:
    from datasets import DatasetDict, Value

    data = make_split([-1, 0, 1, -1, 0, 1], Value("int64"))
    DatasetDict({"train": data, "dev": data}).save_to_disk(tmp_path / "three")
    task = load_hub(str(tmp_path / "three"))
    assert task.labels == ("-1", "0", "1")
    assert len(task.validation) == 6


def test_hidden_targets_of_a_test_split(tmp_path: Path) -> None:
    from datasets import DatasetDict, Value

    data, hidden = make_split([i / 7 for i in range(20)], Value("float32")), make_split([-1.0] * 3, Value("float32"))
    DatasetDict({"train": data, "validation": data, "test": hidden}).save_to_disk(tmp_path / "scores")
    task = load_hub(str(tmp_path / "scores"))
    assert (task.kind, task.test) == ("regression", None)


def test_overrides(folder: Path) -> None:
    task = load_hub(str(folder), metric="f1", text_column="sentence", label_column="label")
    assert task.metric == "f1"
    with pytest.raises(TaskError, match="no column 'sentense'; did you mean 'sentence'"):
        load_hub(str(folder), text_column="sentense")


def test_glue_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Value

    seen: list[Address] = []

    def load(_name: str, address: Address) -> dict[str, Any]:
        seen.append(address)
        numbers = [i % 5 for i in range(20)] if address.config == "stsb" else [i % 2 for i in range(20)]
        data = make_split(numbers, Value("float32" if address.config == "stsb" else "int64"))
        return {"train": data, "validation_matched": data, "validation_mismatched": data}

    monkeypatch.setattr(hub, "_load", load)
    metrics = {}
    for config in ("sst2", "cola", "mrpc", "qqp", "stsb", "mnli"):
        task = load_hub(f"glue/{config}")
        assert task.name == config
        assert len(task.validation) == 20
        metrics[config] = (task.kind, task.metric)
    assert {address.path for address in seen} == {"nyu-mll/glue"}
    assert metrics.pop("stsb") == ("regression", "pearson")
    assert {config: metric for config, (_, metric) in metrics.items()} == {
        "sst2": "accuracy", "cola": "matthews", "mrpc": "f1", "qqp": "f1", "mnli": "accuracy",
    }  # fmt: skip
    assert load_hub("glue/cola", metric="accuracy").metric == "accuracy"


@pytest.mark.parametrize(
    ("name", "path", "config"),
    [
        ("glue/sst2", "nyu-mll/glue", "sst2"),
        ("glue:sst2", "nyu-mll/glue", "sst2"),
        ("org/name", "org/name", None),
        ("org/name:config", "org/name", "config"),
        ("imdb:plain_text", "imdb", "plain_text"),
    ],
)
def test_addresses(name: str, path: str, config: str | None) -> None:
    assert parse_address(name) == Address(path=path, config=config, is_folder=False)


def test_out_of_reach_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    before, start = constants.HF_HUB_OFFLINE, time.perf_counter()
    with pytest.raises(
        TaskError, match=r"'org/sentimant': cannot be loaded .*did you mean the embedded task 'sentiment'"
    ):
        load_hub("org/sentimant")
    assert time.perf_counter() - start < 10
    assert before == constants.HF_HUB_OFFLINE


def test_offline_by_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_args, **_kwargs: pytest.fail("the network was asked"))
    with pytest.raises(TaskError, match=r"'glue/sst2': cannot be loaded .*or an embedded task"):
        load_hub("glue/sst2")


def test_folders_that_hold_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"cannot be loaded .*a folder of csv, jsonl or parquet files"):
        load_hub(str(tmp_path))
    from datasets import DatasetDict

    DatasetDict({"extra": class_splits()["train"]}).save_to_disk(tmp_path / "odd")
    with pytest.raises(TaskError, match=r"no split 'train' \(splits: extra\)"):
        load_hub(str(tmp_path / "odd"))


def test_a_split_may_number_its_classes_in_its_own_order(tmp_path):
    names = ["negative", "positive"]
    texts = [f"text {i}" for i in range(8)]

    def split(order):
        rows = {"text": texts, "label": [order.index(names[i % 2]) for i in range(8)]}
        return datasets.Dataset.from_dict(rows).cast_column("label", datasets.ClassLabel(names=order))

    turned = split(names[::-1])
    datasets.DatasetDict(train=split(names), validation=turned, test=turned).save_to_disk(tmp_path / "data")
    task = resolve_task(name=str(tmp_path / "data"))
    assert task.labels == tuple(names)
    assert task.train.labels == task.validation.labels == task.test.labels == [i % 2 for i in range(8)]


def test_a_class_that_train_lacks_is_refused_by_its_name(tmp_path):
    def split(*labels):
        rows = {"text": [f"{i} {label}" for i, label in enumerate(labels)], "label": list(labels)}
        return datasets.Dataset.from_dict(rows).class_encode_column("label")

    apart = datasets.DatasetDict(train=split("a", "b", "a", "b"), validation=split("b", "c", "b", "c"))
    apart.save_to_disk(tmp_path / "data")
    with pytest.raises(TaskError, match="label 'c' does not occur in training"):
        resolve_task(name=str(tmp_path / "data"))


@pytest.mark.parametrize("labels", [None, [None] * 4, [None, 1, 0, None]])
def test_rows_without_labels_are_left_out_of_other_splits_and_told(tmp_path, labels):
    rows = {"text": [f"text {i}" for i in range(4)], "label": [0, 1, 0, 1]}
    bare = {"text": rows["text"]} | ({} if labels is None else {"label": labels})
    data = {
        name: datasets.Dataset.from_dict(columns)
        for name, columns in (("train", rows), ("validation", rows), ("test", bare))
    }
    datasets.DatasetDict(data).save_to_disk(tmp_path / "data")
    task = resolve_task(name=str(tmp_path / "data"))
    assert (0 if task.test is None else len(task.test)) == sum(label is not None for label in labels or [])
    assert any("left out" in note for note in task.notes)


@pytest.mark.parametrize("train_names", [True, False])
def test_splits_of_which_one_has_numbers_and_one_names(tmp_path, train_names):
    texts = {"text": [f"text {i}" for i in range(6)]}
    order = ["positive", "negative"]
    named = datasets.Dataset.from_dict(texts | {"label": [0, 1] * 3}).cast_column(
        "label", datasets.ClassLabel(names=order)
    )
    words = datasets.Dataset.from_dict(texts | {"label": ["positive", "negative"] * 3})
    numbers = datasets.Dataset.from_dict(texts | {"label": [0, 1] * 3})
    train, other = (named, numbers) if train_names else (words, named)
    datasets.DatasetDict(train=train, validation=other).save_to_disk(tmp_path / "data")
    task = resolve_task(name=str(tmp_path / "data"))
    assert [task.labels[i] for i in task.validation.labels] == ["positive", "negative"] * 3
    assert any("numbers without names" in note for note in task.notes) == train_names


class TestGeneration:
    PAIRS = tuple({"prompt": f"what is {i}", "completion": f"it is {i}", "id": i} for i in range(8))
    CHATS = tuple(
        {"messages": [{"role": "user", "content": f"what is {i}"}, {"role": "assistant", "content": f"it is {i}"}]}
        for i in range(8)
    )

    def save(self, path, rows):
        data = datasets.Dataset.from_list(list(rows))
        datasets.DatasetDict(train=data, validation=data).save_to_disk(path)
        return str(path)

    def test_prompts_and_completions(self, tmp_path):
        task = resolve_task(name=self.save(tmp_path / "pairs", self.PAIRS), kind="generation")
        assert (task.kind, task.source) == ("generation", f"folder {tmp_path / 'pairs'}")
        assert task.validation.pairs == [row["completion"] for row in self.PAIRS]
        named = resolve_task(name=str(tmp_path / "pairs"), prompt_column="completion", completion_column="prompt")
        assert named.train.pairs == [row["prompt"] for row in self.PAIRS]

    def test_chats_are_known_by_their_column(self, tmp_path):
        task = resolve_task(name=self.save(tmp_path / "chats", self.CHATS))
        assert task.kind == "generation"
        assert [dict(turn) for turn in task.train.chats[3]] == self.CHATS[3]["messages"]

    def test_an_embedded_task_has_none(self):
        with pytest.raises(
            TaskError, match="give --train FILE with prompts and completions, or --task with a data set"
        ):
            resolve_task(name="sentiment", kind="generation")
