"""Encoding and batches: nothing is lost, nothing is doubled, padding is masked, and the seed decides."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from peftsearch.errors import TaskError
from peftsearch.tasks.embedded import load_embedded
from peftsearch.tasks.encoding.batches import batches, epoch, eval_batches
from peftsearch.tasks.encoding.encode import encode, encode_split
from peftsearch.tasks.encoding.encoded import EncodedTexts
from peftsearch.tasks.task import Split, Task


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizerFast:
    """A word tokenizer: [CLS] is 2, [SEP] is 3, "a" is 5, "b" is 6 and so on."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]
    path: Path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(words))
    return BertTokenizerFast(vocab=str(path))


def make_task(texts: list[str], pairs: list[str] | None = None) -> Task:
    split = Split(texts=texts, pairs=pairs, labels=[i % 2 for i in range(len(texts))])
    return Task(
        name="t", kind="classification", labels=("x", "y"), train=split, validation=split, test=None,
        metric="accuracy", source="here",
    )  # fmt: skip


def make_split(lengths: list[int]) -> EncodedTexts:
    """Example i has the label i and tokens of value i + 1, so that a row names its example."""
    ids = [[i + 1] * length for i, length in enumerate(lengths)]
    return EncodedTexts(input_ids=ids, token_type_ids=None, labels=list(range(len(lengths))), pad_id=0)


def test_ids_and_segments_by_hand(tokenizer: BertTokenizerFast) -> None:
    encoded = encode(make_task(["a b", "c"], ["d", "e f"]), tokenizer)
    assert encoded.train.input_ids == [[2, 5, 6, 3, 8, 3], [2, 7, 3, 9, 10, 3]]
    assert encoded.train.token_type_ids == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert encoded.train.labels == [0, 1]
    assert encoded.test is None
    assert encoded.notes == ()


def test_long_texts_are_cut_and_counted(tokenizer: BertTokenizerFast) -> None:
    encoded = encode(make_task(["a b c d", "a", "a b c"]), tokenizer, max_length=4)
    assert encoded.train.input_ids == [[2, 5, 6, 3], [2, 5, 3], [2, 5, 6, 3]]
    assert encoded.notes[0] == "2 of 3 texts of train are longer than 4 tokens and were cut"


def test_a_pair_is_cut_at_its_longer_text(tokenizer: BertTokenizerFast) -> None:
    encoded = encode(make_task(["a a a a"], ["b"]), tokenizer, max_length=6)
    assert encoded.train.input_ids == [[2, 5, 5, 3, 6, 3]]


def test_padding_is_on_the_right_and_masked(tokenizer: BertTokenizerFast) -> None:
    split = encode(make_task(["a b", "c"], ["d", "e"]), tokenizer).train
    batch = split.collate([1, 0])
    assert batch["input_ids"].tolist() == [[2, 7, 3, 9, 3, 0], [2, 5, 6, 3, 8, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["labels"].dtype == torch.int64


def test_targets_are_float64() -> None:
    """Standardising them in less would lose targets with a large offset, such as times in seconds."""
    split = EncodedTexts(input_ids=[[1], [2]], token_type_ids=None, labels=[0.5, 2.0], pad_id=0)
    assert split.collate([0, 1])["labels"].dtype == torch.float64
    assert "token_type_ids" not in split.collate([0])


def test_faults(tokenizer: BertTokenizerFast) -> None:
    with pytest.raises(TaskError, match="max_length is 2; this tokenizer needs at least 3"):
        encode(make_task(["a"]), tokenizer, max_length=2)
    with pytest.raises(TaskError, match="max_length is 3; this tokenizer needs at least 4"):
        encode(make_task(["a"], ["b"]), tokenizer, max_length=3)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=120),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 2**31),
)
def test_every_example_once_per_epoch(lengths: list[int], batch_size: int, seed: int) -> None:
    split = make_split(lengths)
    cut = epoch(split, batch_size, Random(seed))
    assert sorted(i for batch in cut for i in batch) == list(range(len(lengths)))
    assert max(map(len, cut)) <= batch_size
    steps = 2 * len(cut)
    made = list(batches(split, batch_size, seed, steps))
    assert len(made) == steps
    for half in (made[: len(cut)], made[len(cut) :]):
        assert sorted(label for batch in half for label in batch["labels"].tolist()) == list(range(len(lengths)))


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=60), batch_size=st.integers(1, 7))
def test_eval_batches_give_each_example_with_its_index(lengths: list[int], batch_size: int) -> None:
    seen: list[int] = []
    for indices, batch in eval_batches(make_split(lengths), batch_size):
        assert batch["labels"].tolist() == indices
        assert batch["attention_mask"].sum(1).tolist() == [lengths[i] for i in indices]
        assert batch["input_ids"][:, 0].tolist() == [i + 1 for i in indices]
        assert (batch["input_ids"] != 0).equal(batch["attention_mask"].bool())
        seen.extend(indices)
    assert sorted(seen) == list(range(len(lengths)))


def test_the_seed_decides_and_steps_cut() -> None:
    split = make_split([1 + i % 9 for i in range(100)])
    first, again, other = ([b["labels"].tolist() for b in batches(split, 8, seed, 30)] for seed in (1, 1, 2))
    assert first == again != other
    assert first[:5] == [b["labels"].tolist() for b in islice(batches(split, 8, 1, 5), 9)]


def test_batches_hold_texts_of_like_length() -> None:
    split = make_split([1 + i % 10 for i in range(1000)])
    padded = sum(batch["input_ids"].numel() for batch in batches(split, 10, 0, 100))
    assert padded <= 1.1 * sum(map(len, split.input_ids))


def test_the_default_task_encodes(tokenizer: BertTokenizerFast) -> None:
    task = load_embedded("sentiment", n_train=50, n_validation=20, n_test=20)
    encoded = encode(task, tokenizer)
    assert [len(s) for s in (encoded.train, encoded.validation)] == [50, 20]
    assert encoded.test is not None
    assert len(encoded.test) == 20


def test_a_tokenizer_that_runs_pairs_together_gets_a_line_end_between_them() -> None:
    """GPT-2's and Qwen's put nothing between two texts."""

    class Bytes:
        pad_token_id = 0

        def num_special_tokens_to_add(self, pair: bool) -> int:
            return 0

        def __call__(self, texts: list[str], pairs: list[str] | None = None, **_: object) -> dict[str, object]:
            joined = texts if pairs is None else [a + b for a, b in zip(texts, pairs, strict=True)]
            return {"input_ids": [list(text.encode()) for text in joined]}

    split = Split(texts=["one"], pairs=["two"], labels=[0])
    assert bytes(encode_split(split, Bytes(), 99).input_ids[0]) == b"one\ntwo"
