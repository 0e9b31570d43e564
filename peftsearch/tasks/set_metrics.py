"""Metrics of tasks with several answers for each example: the tags of its words, or any number of classes.

Entities are compared whole, as CoNLL-2003 does, by seqeval (extra `tagging`): a predicted one is right if its type and
both of its ends are. F1 over several classes counts every pair of an example and a class (micro), or is the mean over
the classes (macro); both come from scikit-learn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec

from peftsearch.errors import TaskError

Sets = Sequence[Sequence[int]]
"""A 1 or 0 for every class of every example, or the index of the tag of every word."""
ENTITY_F1 = "entity_f1"


def require_seqeval(metric: str) -> None:
    """Check that the package of a metric is installed.

    Raises:
        TaskError: It is not.
    """
    if metric == ENTITY_F1 and find_spec("seqeval") is None:
        raise TaskError(f"metric {metric!r} needs seqeval: pip install 'peftsearch[tagging]'; or use tag_accuracy")


def entity_f1(predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> float:
    """F1 of whole entities, micro-averaged over their types; 0 where there are none.

    Args:
        predictions: Tag of each word of each example, such as `B-city`, `I-city`, `O`.
        labels: The true tags.
    """
    from seqeval.metrics import f1_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on tags that are not IOB, each of which is an entity of its own
        return float(f1_score(list(map(list, labels)), list(map(list, predictions)), zero_division=0))


def tag_accuracy(predictions: Sets, labels: Sets) -> float:
    """The share of words with the right tag."""
    pairs = [(p, t) for own, true in zip(predictions, labels, strict=True) for p, t in zip(own, true, strict=True)]
    return sum(p == t for p, t in pairs) / max(1, len(pairs))


def micro_f1(predictions: Sets, labels: Sets) -> float:
    """F1 over all pairs of an example and a class."""
    return _f1(predictions, labels, "micro")


def macro_f1_of_sets(predictions: Sets, labels: Sets) -> float:
    """Mean F1 over the classes."""
    return _f1(predictions, labels, "macro")


def subset_accuracy(predictions: Sets, labels: Sets) -> float:
    """The share of examples whose classes are all right."""
    return sum(list(p) == list(t) for p, t in zip(predictions, labels, strict=True)) / len(labels)


def _f1(predictions: Sets, labels: Sets, average: str) -> float:
    import numpy as np
    from sklearn.metrics import f1_score

    return float(f1_score(np.asarray(labels), np.asarray(predictions), average=average, zero_division=0.0))
