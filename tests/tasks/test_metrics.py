"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from peftsearch.errors import TaskError
from peftsearch.tasks.metrics import METRICS, choose_metric, imbalance_note, score
from peftsearch.tasks.task import Split, Task

LABELS = [1, 1, 1, 0, 0, 0, 0, 1]
PREDICTIONS = [1, 1, 0, 0, 0, 1, 0, 1]  # 3 true positives, 1 false negative, 1 false positive, 3 true negatives


def test_classification_by_hand() -> None:
    assert score("accuracy", PREDICTIONS, LABELS) == 6 / 8
    assert score("f1", PREDICTIONS, LABELS) == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert score("matthews", PREDICTIONS, LABELS) == pytest.approx((3 * 3 - 1 * 1) / math.sqrt(4 * 4 * 4 * 4))


def test_f1_of_three_classes_is_the_mean_over_classes() -> None:
    assert score("f1", [0, 1, 2, 2], [0, 1, 1, 2], 3) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_f1_keeps_its_definition_whatever_is_predicted() -> None:
    """A validation split without class 2: predicting it or not, F1 is the mean over classes 0 and 1."""
    assert score("f1", [0, 1, 1, 0], [0, 1, 0, 0], 3) == pytest.approx((0.8 + 2 / 3) / 2)
    assert score("f1", [0, 1, 2, 0], [0, 1, 0, 0], 3) == pytest.approx((0.8 + 1) / 2)


def test_correlations_by_hand() -> None:
    # deviations (-1, 0, 1) and (-2, 1, 1): 3 / sqrt(2 * 6)
    assert score("pearson", [1.0, 2.0, 3.0], [0.0, 3.0, 3.0]) == pytest.approx(3 / math.sqrt(12))
    # ranks 1 2 3 4 and 1 2 4 3: 1 - 6 * 2 / (4 * 15)
    assert score("spearman", [1.0, 2.0, 30.0, 400.0], [5.0, 6.0, 9.0, 8.0]) == pytest.approx(0.8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", ["matthews", "pearson", "spearman"])
@pytest.mark.parametrize("constant", ["predictions", "labels", "both"])
def test_a_constant_scores_zero_without_a_warning(metric: str, constant: str) -> None:
    varied, fixed = [0, 1, 1, 0], [1, 1, 1, 1]
    predictions = fixed if constant in ("predictions", "both") else varied
    labels = fixed if constant in ("labels", "both") else varied
    assert score(metric, predictions, labels) == 0.0


@pytest.mark.filterwarnings("error")
def test_f1_without_a_positive_is_zero() -> None:
    assert score("f1", [0, 0], [0, 1]) == 0.0


@pytest.mark.parametrize(
    "metric", [name for name, line in METRICS.items() if line.kind in ("classification", "regression")]
)
def test_perfect_is_one(metric: str) -> None:
    assert score(metric, LABELS, LABELS) == pytest.approx(1.0)


def test_faults() -> None:
    with pytest.raises(TaskError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        score("acuracy", [1], [1])
    with pytest.raises(TaskError, match="2 predictions for 1 labels"):
        score("accuracy", [1, 0], [1])
    with pytest.raises(TaskError, match="0 predictions for 0 labels"):
        score("accuracy", [], [])
    with pytest.raises(TaskError, match=r"'pearson' is for regression, .* choose one of: accuracy, f1, matthews"):
        choose_metric("classification", "pearson")
    with pytest.raises(TaskError, match="unknown metric"):
        choose_metric("classification", "blue")


def test_defaults() -> None:
    assert (choose_metric("classification"), choose_metric("regression")) == ("accuracy", "pearson")


def make_task(train: list[int], validation: list[int], metric: str) -> Task:
    def split(labels: list[int]) -> Split:
        return Split(texts=[str(i) for i in range(len(labels))], pairs=None, labels=labels)

    return Task(
        name="t", kind="classification", labels=("a", "b"), train=split(train), validation=split(validation), test=None,
        metric=metric, source="here",
    )  # fmt: skip


def test_majority_is_that_of_train() -> None:
    assert make_task([1, 1, 0], [0, 0, 0, 1], "accuracy").majority_score == 0.25
    assert make_task([1, 1, 0], [0, 0, 0, 1], "matthews").majority_score == 0.0
    assert make_task([1, 0], [0, 0, 0, 1], "accuracy").majority_score == 0.75  # of equals the first


def test_fingerprint_is_of_the_content() -> None:
    task = make_task([1, 0], [0, 1], "accuracy")
    assert task.fingerprint == make_task([1, 0], [0, 1], "f1").fingerprint
    assert task.fingerprint != make_task([0, 1], [0, 1], "accuracy").fingerprint
    assert len(task.fingerprint) == 16


def test_unequal_classes_are_told_where_accuracy_judges():
    labels = [0] * 97 + [1] * 3
    assert "97% of the training examples are 'no'" in str(imbalance_note("accuracy", labels, ("no", "yes")))
    assert imbalance_note("f1", labels, ("no", "yes")) is None
    assert imbalance_note("accuracy", [0] * 80 + [1] * 20, ("no", "yes")) is None
