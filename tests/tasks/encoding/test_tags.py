"""Tags at the first tokens of words, against what the tokenizer itself says of words that it is given apart."""

import pytest

from peftsearch.backbone.load import load_backbone
from peftsearch.errors import TaskError
from peftsearch.tasks.encoding.pairs import IGNORED
from peftsearch.tasks.encoding.tags import encode_tags
from peftsearch.tasks.task import TagSplit

WORDS = [
    ["flights", "to", "St.", "Louis", "at", "5:30pm"],
    ["unbelievably", "antidisestablishmentarianism"],
    ["o'clock", "U.S.A", "naïve", "日本", "x"],
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_backbone(None, num_labels=2).tokenizer


@pytest.fixture
def split():
    return TagSplit.of(WORDS, [list(range(len(row))) for row in WORDS])


def test_the_first_tokens_are_those_of_the_tokenizer(tokenizer, split):
    encoded = encode_tags(split, tokenizer, 64)
    made = tokenizer(WORDS, is_split_into_words=True)
    for i, row in enumerate(WORDS):
        assert encoded.input_ids[i] == made["input_ids"][i]
        ids = made.word_ids(i)
        assert encoded.places[i] == [ids.index(k) for k in range(len(row))]
        assert encoded.labels[i] == list(range(len(row)))


def test_a_batch_learns_first_tokens_alone(tokenizer, split):
    encoded = encode_tags(split, tokenizer, 64)
    batch = encoded.collate([1, 0])
    assert batch["labels"].shape == batch["input_ids"].shape
    for row, i in enumerate([1, 0]):
        learned = (batch["labels"][row] != IGNORED).nonzero().squeeze(-1).tolist()
        assert learned == encoded.places[i]
        assert batch["labels"][row, learned].tolist() == encoded.labels[i]


def test_words_that_are_cut_have_no_tag(tokenizer, split):
    encoded = encode_tags(split, tokenizer, 6)
    assert encoded.n_truncated == 3
    assert all(len(ids) <= 6 for ids in encoded.input_ids)
    assert encoded.labels[0] == encoded.words[0] == list(range(len(encoded.places[0])))
    assert 0 < len(encoded.labels[0]) < len(WORDS[0])


def test_a_tokenizer_that_does_not_know_the_places_of_its_tokens(tokenizer, split, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(TaskError, match="does not tell where its tokens are in a text"):
        encode_tags(split, tokenizer, 64)
