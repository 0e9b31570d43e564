"""Metrics of tags and of several classes, on values that are counted by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from peftsearch.errors import TaskError
from peftsearch.tasks import set_metrics
from peftsearch.tasks.metrics import choose_metric, score

NAMES = ("O", "B-city", "I-city", "B-day")
TRUE = [[0, 1, 2, 0], [1, 3]]
FOUND = [[0, 1, 0, 0], [1, 3]]
"""One of three entities ends too early."""
SETS = [[1, 0, 1], [0, 0, 0], [1, 1, 0]]
GUESSES = [[1, 0, 0], [0, 0, 1], [1, 1, 0]]


def test_entities_count_whole():
    assert score("entity_f1", TRUE, TRUE, 4, names=NAMES) == 1.0
    assert score("entity_f1", FOUND, TRUE, 4, names=NAMES) == pytest.approx(2 / 3)
    assert score("entity_f1", [[0, 0, 0, 0], [0, 0]], TRUE, 4, names=NAMES) == 0.0


def test_words_count_each():
    assert score("tag_accuracy", FOUND, TRUE, 4, names=NAMES) == pytest.approx(5 / 6)


def test_several_classes():
    assert score("micro_f1", GUESSES, SETS, 3) == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert score("macro_f1", GUESSES, SETS, 3) == pytest.approx((1 + 1 + 0) / 3)
    assert score("subset_accuracy", GUESSES, SETS, 3) == pytest.approx(1 / 3)
    assert score("micro_f1", GUESSES, SETS, 3) == f1_score(np.array(SETS), np.array(GUESSES), average="micro")


def test_without_its_package_the_metric_names_it(monkeypatch):
    monkeypatch.setattr(set_metrics, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"needs seqeval: pip install 'peftsearch\[tagging\]'; or use tag_accuracy"):
        choose_metric("tagging")
    assert choose_metric("tagging", "tag_accuracy") == "tag_accuracy"
