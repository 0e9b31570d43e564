"""The generated tasks: their labels against independent readings of the sentences, their splits, their fingerprints."""

from __future__ import annotations

import re
from itertools import combinations
from random import Random

import pytest

from peftsearch.errors import TaskError
from peftsearch.tasks.embedded import EMBEDDED, load_embedded
from peftsearch.tasks.embedded.generate import Draft, make_split
from peftsearch.tasks.embedded.vocabulary import BAD, GOOD, PEOPLE, PLEASES, THINGS, UPSETS, Words
from peftsearch.tasks.task import Task

NEGATORS = r"\b(not|never|hardly|far from|anything but|nobody|by no means)\b"
DIMENSIONS = {
    "taller": ("height", 1), "shorter": ("height", -1), "older": ("age", 1), "younger": ("age", -1),
    "stronger": ("power", 1), "weaker": ("power", -1), "richer": ("money", 1), "poorer": ("money", -1),
    "faster": ("speed", 1), "slower": ("speed", -1), "happier": ("joy", 1), "sadder": ("joy", -1),
    "louder": ("noise", 1), "quieter": ("noise", -1), "braver": ("heart", 1), "shyer": ("heart", -1),
}  # fmt: skip
CROWD = 10
QUANTIFIERS = {
    "all": {CROWD},
    "no": {0},
    "many": set(range(6, CROWD + 1)),
    "some": set(range(1, CROWD + 1)),
    "not all": set(range(CROWD)),
    "not many": set(range(6)),
}


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {name: load_embedded(name) for name in EMBEDDED}


def read_sentiment(text: str, _pair: str | None) -> bool:
    if text.startswith(("although ", "while ")):
        main = text.split(" , ")[1]
    elif " even though " in text or " although " in text:
        main = re.split(r" (?:even though|although) ", text)[0]
    else:
        main = re.split(r"(?<!anything) but | , yet ", text)[-1]
    words = set(main.split())
    praise = words & {*GOOD.common, *GOOD.rare, *PLEASES, *PLEASES.values()}
    blame = words & {*BAD.common, *BAD.rare, *UPSETS, *UPSETS.values()}
    assert bool(praise) != bool(blame), text
    return bool(praise) != bool(re.search(NEGATORS, main))


def read_acceptability(text: str, _pair: str | None) -> bool:
    nouns = list(re.findall(r"\bthe (\w+)", text))
    subject = nouns[0] if text.startswith("the ") else nouns[-1]
    verb = re.search(r"\b(is|was|looks|seems|are|were|look|seem) \w+$", text)
    assert verb, text
    return (subject not in PEOPLE and subject not in THINGS) == (verb[1] in {"are", "were", "look", "seem"})


def read_entailment(premise: str, hypothesis: str | None) -> bool:
    assert hypothesis is not None
    if " than " in premise:
        return order(hypothesis, *facts(premise))
    if "were" in premise:
        return quantity(premise) <= quantity(hypothesis)
    return event(premise) == event(hypothesis)


def facts(text: str) -> tuple[str, str, str]:
    """The dimension, who has more of it and who less."""
    match = re.fullmatch(r"the (\w+) is (\w+) than the (\w+)", text)
    assert match, text
    dimension, sign = DIMENSIONS[match[2]]
    return (dimension, match[1], match[3]) if sign > 0 else (dimension, match[3], match[1])


def order(text: str, dimension: str, more: str, less: str) -> bool:
    said = facts(text.replace("is not ", "is "))
    assert said[0] == dimension
    return (said[1:] == (more, less)) != (" not " in text)


def quantity(text: str) -> set[int]:
    """How many of the crowd it can be."""
    match = re.fullmatch(r"(all|no|many|some|not all|not many) \w+ were \w+", text)
    assert match, text
    return QUANTIFIERS[match[1]]


def event(text: str) -> tuple[str, str, str]:
    passive = re.fullmatch(r"the (\w+) was (\w+) by the (\w+)", text)
    if passive:
        return passive[3], passive[2], passive[1]
    active = re.fullmatch(r"the (\w+) (\w+) the (\w+)", text)
    assert active, text
    return active[1], active[2], active[3]


READERS = {"sentiment": read_sentiment, "acceptability": read_acceptability, "entailment": read_entailment}


def splits_of(task: Task) -> dict[str, set[tuple[str, str | None]]]:
    assert task.test is not None
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    return {name: set(split.rows()) for name, split in splits.items()}


@pytest.mark.parametrize("name", EMBEDDED)
def test_labels_agree_with_an_independent_reading(tasks: dict[str, Task], name: str) -> None:
    task = tasks[name]
    assert task.test is not None
    for split in (task.train, task.validation, task.test):
        wrong = [
            row for row, label in zip(split.rows(), split.labels, strict=True) if READERS[name](*row) != bool(label)
        ]
        assert not wrong


@pytest.mark.parametrize("name", EMBEDDED)
def test_splits_share_no_example_and_are_balanced(tasks: dict[str, Task], name: str) -> None:
    task = tasks[name]
    rows = splits_of(task)
    assert {split: len(found) for split, found in rows.items()} == {"train": 2000, "validation": 500, "test": 500}
    assert all(not rows[a] & rows[b] for a, b in combinations(rows, 2))
    assert sum(task.train.labels) == 1000
    assert sum(task.validation.labels) == 250
    assert task.majority_score == 0.5


def test_fingerprints_are_the_same_everywhere(tasks: dict[str, Task]) -> None:
    assert {name: task.fingerprint for name, task in tasks.items()} == {
        "sentiment": "987ee73741a7ae0c",
        "acceptability": "b6972e67b22c2bc6",
        "entailment": "95d90e9eb859b0d8",
    }


def test_the_seed_decides() -> None:
    small = {"n_train": 40, "n_validation": 20, "n_test": 0}
    first, again, other = (load_embedded("sentiment", seed, **small) for seed in (3, 3, 4))
    assert first == again
    assert first.fingerprint != other.fingerprint
    assert first.test is None


def test_the_size_of_train_leaves_the_other_splits_alone() -> None:
    small, large = load_embedded("sentiment", n_train=10), load_embedded("sentiment", n_train=300)
    assert small.validation == large.validation
    assert small.test == large.test


def test_train_has_no_rare_word_and_validation_has(tasks: dict[str, Task]) -> None:
    task = tasks["sentiment"]
    rare = {*GOOD.rare, *BAD.rare}
    assert not any(rare & set(text.split()) for text in task.train.texts)
    share = sum(bool(rare & set(text.split())) for text in task.validation.texts) / 500
    assert 0.1 < share < 0.35


@pytest.mark.parametrize("words", [GOOD, BAD, PEOPLE, THINGS], ids=["good", "bad", "people", "things"])
def test_no_word_is_listed_twice(words: Words) -> None:
    every = [*words.common, *words.rare]
    assert len(every) == len(set(every))


def test_texts_are_short(tasks: dict[str, Task]) -> None:
    lengths = sorted(len(text.split()) for text in tasks["sentiment"].train.texts)
    assert lengths[len(lengths) // 2] <= 12
    assert lengths[-1] <= 18


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(TaskError, match="unknown task 'sentimant'; did you mean 'sentiment'"):
        load_embedded("sentimant")


def test_sizes_are_checked() -> None:
    with pytest.raises(TaskError, match="n_validation is 1; it must be at least 2"):
        load_embedded("sentiment", n_validation=1)


def test_a_grammar_that_yields_too_little_says_so() -> None:
    def make(rng: Random, label: int, rare: bool) -> Draft:
        word = rng.choice("abcdefghijklmnopqrstuvwxyz")
        return Draft(text=f"{word} {label}", core=word)

    with pytest.raises(
        TaskError,
        match=r"'letters': 99 examples were requested for train, but the grammar yields about \d\d; request fewer",
    ):
        make_split(make, "letters", "train", 99, seed=0)
