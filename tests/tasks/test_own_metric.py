"""Metrics of the user's own: found by name, fed as `compute_metrics` is, and refused in one line when they fail."""

import sys
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

from peftsearch.errors import TaskError
from peftsearch.tasks.metrics import score
from peftsearch.tasks.own_metric import register, short_name

LOGITS = [[2.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, 3.0, 0.0], [1.0, 0.0, 2.0]]
PREDICTED, LABELS = [0, 1, 1, 2], [0, 1, 2, 2]


def balanced(given):
    return {"balanced": balanced_accuracy_score(given.label_ids, given.predictions.argmax(-1)), "n": 4}


def likelihood(given):
    weights = np.exp(given.predictions.astype(np.float64))
    return -log_loss(given.label_ids, weights / weights.sum(-1, keepdims=True))


@pytest.fixture
def module(monkeypatch):
    made = ModuleType("my_metrics")
    made.balanced, made.likelihood, made.number = balanced, likelihood, 3
    made.broken = lambda given: 1 / 0
    made.nothing = lambda given: float("nan")
    monkeypatch.setitem(sys.modules, "my_metrics", made)
    return made


def test_a_function_gets_classes_and_logits(module):
    wanted = balanced_accuracy_score(LABELS, PREDICTED)
    assert score("my_metrics:balanced", PREDICTED, LABELS, 3) == pytest.approx(wanted)
    shares = [np.exp(row) / np.exp(row).sum() for row in LOGITS]
    found = score("my_metrics:likelihood", PREDICTED, LABELS, 3, LOGITS)
    assert found == pytest.approx(-log_loss(LABELS, shares), abs=1e-6)


def test_a_regression_gets_targets(module):
    module.spread = lambda given: float(given.predictions.ndim == 1) * float(given.predictions.max())
    assert score("my_metrics:spread", [0.5, 2.5], [1.0, 2.0], 0, [10.0, 20.0]) == 20.0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("my_metrics:broken", "failed: ZeroDivisionError"),
        ("my_metrics:nothing", "returned nan"),
        ("my_metrics:number", "is a int, not a function"),
        ("my_metrics:absent", "cannot be imported"),
        ("accurcy", "did you mean 'accuracy'"),
    ],
)
def test_a_function_that_fails_is_told_in_one_line(module, name, told):
    with pytest.raises(TaskError, match=told) as caught:
        score(name, PREDICTED, LABELS, 3)
    assert "\n" not in str(caught.value)


def test_functions_of_a_session_are_told_from_those_of_modules():
    assert register(balanced) == (f"{__name__}:balanced", True)
    name, can_import = register(lambda given: 1.0)
    assert not can_import
    assert score(name, PREDICTED, LABELS, 3) == 1.0
    assert short_name(f"{__name__}:balanced") == "balanced"
