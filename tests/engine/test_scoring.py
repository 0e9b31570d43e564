"""The training loss: class weights and label smoothing against scikit-learn and torch."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from peftsearch.engine.scoring import Scorer, class_weights
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError
from peftsearch.tasks.task import Split, Task

LABELS = [0, 0, 0, 1, 0, 2, 0, 1]


def task_of(labels, kind="classification"):
    split = Split(texts=[str(i) for i in range(len(labels))], pairs=None, labels=labels)
    names = ("a", "b", "c") if kind == "classification" else ()
    metric = "accuracy" if kind == "classification" else "pearson"
    return Task(
        name="t", kind=kind, labels=names, train=split, validation=split, test=None, metric=metric, source="here"
    )


def test_weights_are_those_of_scikit_learn():
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=np.array(LABELS))
    assert class_weights(task_of(LABELS)).tolist() == pytest.approx(wanted)


def test_the_loss_is_weighted_and_smoothed():
    task, logits, labels = task_of(LABELS), torch.randn(8, 3, generator=torch.manual_seed(0)), torch.tensor(LABELS)
    settings = TrainingSettings(class_weights="balanced", label_smoothing=0.1)
    each = torch.nn.CrossEntropyLoss(weight=class_weights(task), label_smoothing=0.1, reduction="none")(logits, labels)
    loss = Scorer(task, settings).loss
    assert loss(logits, labels) == pytest.approx(each.mean().item())
    halves = (loss(logits[:4], labels[:4]) + loss(logits[4:], labels[4:])) / 2
    assert halves == pytest.approx(each.mean().item()), "parts of a batch count as the whole"
    plain = torch.nn.CrossEntropyLoss()(logits, labels)
    assert Scorer(task, TrainingSettings()).loss(logits, labels) == pytest.approx(plain.item())


@pytest.mark.parametrize("own", [{"class_weights": "balanced"}, {"label_smoothing": 0.1}])
def test_a_regression_has_no_classes_to_weigh(own):
    with pytest.raises(ConfigError, match="has no classes; leave it out"):
        Scorer(task_of([0.5, 1.5, 2.5], "regression"), TrainingSettings(**own))
