"""Metrics: functions of predictions and labels that return one number, larger is better.

They come from scikit-learn and SciPy; metrics of generated texts are in `text_metrics`. Perplexity, where smaller is
better, is replaced by the log-likelihood in a search: perplexity = exp(-log_likelihood). Undefined values (a
correlation with a constant) are 0.0 here, the score of knowing nothing, so that a model with constant answers has a
comparable score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peftsearch.errors import TaskError, unknown_name
from peftsearch.tasks.kinds import Answers, Kind
from peftsearch.tasks.own_metric import is_own, load_own, score_own
from peftsearch.tasks.set_metrics import (
    ENTITY_F1,
    entity_f1,
    macro_f1_of_sets,
    micro_f1,
    require_seqeval,
    subset_accuracy,
    tag_accuracy,
)
from peftsearch.tasks.span_metrics import ANSWER_F1, References, answer_f1, answer_match
from peftsearch.tasks.text_metrics import EACH, bleu, log_likelihood, mean_of, require_extra

Numbers = Sequence[int] | Sequence[float]


def accuracy(predictions: Numbers, labels: Numbers) -> float:
    """The share of correct predictions."""
    return sum(p == t for p, t in zip(predictions, labels, strict=True)) / len(labels)


def f1(predictions: Numbers, labels: Numbers) -> float:
    """F1 of class 1 of a task with two classes."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="binary", zero_division=0.0))


def macro_f1(predictions: Numbers, labels: Numbers) -> float:
    """Mean F1 over the classes that occur in `labels`, for tasks with more than two classes."""
    from sklearn.metrics import f1_score

    classes = sorted(set(labels))
    return float(f1_score(labels, predictions, labels=classes, average="macro", zero_division=0.0))


def matthews(predictions: Numbers, labels: Numbers) -> float:
    """Matthews' correlation coefficient, -1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    return _unless_constant(lambda: matthews_corrcoef(labels, predictions), predictions, labels)


def pearson(predictions: Numbers, labels: Numbers) -> float:
    """Pearson's correlation, -1 to 1."""
    from scipy.stats import pearsonr

    return _unless_constant(lambda: pearsonr(predictions, labels).statistic, predictions, labels)


def spearman(predictions: Numbers, labels: Numbers) -> float:
    """Spearman's rank correlation, -1 to 1."""
    from scipy.stats import spearmanr

    return _unless_constant(lambda: spearmanr(predictions, labels).statistic, predictions, labels)


def _unless_constant(measure: Callable[[], Any], predictions: Numbers, labels: Numbers) -> float:
    if len(set(predictions)) < 2 or len(set(labels)) < 2:
        return 0.0
    return float(measure())


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric of the table."""

    measure: Callable[[Any, Any], float]
    """Function of predictions and labels: numbers, or what is described in `set_metrics` and `text_metrics`."""
    kind: Kind
    """Kind of tasks that the metric is for."""


METRICS = {
    "accuracy": Metric(measure=accuracy, kind="classification"),
    "f1": Metric(measure=f1, kind="classification"),
    "matthews": Metric(measure=matthews, kind="classification"),
    "pearson": Metric(measure=pearson, kind="regression"),
    "spearman": Metric(measure=spearman, kind="regression"),
    ENTITY_F1: Metric(measure=entity_f1, kind="tagging"),
    "tag_accuracy": Metric(measure=tag_accuracy, kind="tagging"),
    "micro_f1": Metric(measure=micro_f1, kind="multi_label"),
    "macro_f1": Metric(measure=macro_f1_of_sets, kind="multi_label"),
    "subset_accuracy": Metric(measure=subset_accuracy, kind="multi_label"),
    ANSWER_F1: Metric(measure=answer_f1, kind="question_answering"),
    "answer_match": Metric(measure=answer_match, kind="question_answering"),
    "log_likelihood": Metric(measure=log_likelihood, kind="generation"),
    "bleu": Metric(measure=bleu, kind="generation"),
    **{name: Metric(measure=mean_of(name), kind="generation") for name in EACH},
}
DEFAULTS: dict[Kind, str] = {
    "classification": "accuracy",
    "regression": "pearson",
    "generation": "log_likelihood",
    "tagging": ENTITY_F1,
    "multi_label": "micro_f1",
    "question_answering": ANSWER_F1,
}
IMBALANCED = 0.9
"""Share of the largest class from which accuracy says little."""
SAME_ORDER = {"perplexity": "log_likelihood", "normalized_match": "normalised_match"}
"""Further names that users may give, each with the metric of the table that ranks designs in the same order."""


def score(
    metric: str,
    predictions: Sequence[Any],
    labels: Answers | References,
    n_classes: int = 2,
    outputs: Sequence[Any] | None = None,
    names: Sequence[str] = (),
) -> float:
    """Score predictions against labels: class indices, numbers for a regression, or lists as in `Split.answers`.

    Args:
        metric: A name of the table, or `module:function`; see `own_metric`.
        predictions: One prediction for each label; for a metric of one's own, one for each word.
        labels: The true labels, likewise; of answers, the right ones of each example.
        n_classes: Number of classes of the task; with more than two, `f1` is the macro mean.
        outputs: Logits `(n, n_classes)` for a metric of one's own; None makes them of the predicted classes.
        names: The tags of the task by index, for the F1 of entities.

    Raises:
        TaskError: There is no such metric, there are no examples, or predictions and labels differ in length.
    """
    check_metric(metric)
    if len(predictions) != len(labels) or not len(labels):
        raise TaskError(
            f"metric {metric!r}: {len(predictions)} predictions for {len(labels)} labels; there must be one for "
            "each, and at least one"
        )
    if is_own(metric):
        return score_own(metric, _as_outputs(predictions, n_classes) if outputs is None else outputs, labels)
    if metric == ENTITY_F1:
        predictions, labels = _named(predictions, names), _named(labels, names)
    measure: Callable[[Any, Any], float] = METRICS[metric].measure
    if metric == "f1" and n_classes > 2:
        measure = macro_f1
    return measure(predictions, labels)


def _as_outputs(predictions: Sequence[Any], n_classes: int) -> Sequence[Any]:
    """Logits of predicted classes, the largest or those above 0; of a regression, the predictions themselves."""
    if n_classes == 0:
        return predictions
    if isinstance(predictions[0], list):
        return [[2.0 * has - 1.0 for has in row] for row in predictions]
    return [[float(c == p) for c in range(n_classes)] for p in predictions]


def _named(rows: Sequence[Any], names: Sequence[str]) -> Any:
    return [[names[i] for i in row] for row in rows]


def imbalance_note(metric: str, labels: Sequence[int], classes: Sequence[str]) -> str | None:
    """A note on classes so unequal that accuracy says little; None where they are not, or another metric is used.

    Args:
        metric: Metric of the task.
        labels: Class indices of the training examples.
        classes: Names of the classes.
    """
    if metric != "accuracy":
        return None
    (most, n), *_ = Counter(labels).most_common(1)
    if n < IMBALANCED * len(labels):
        return None
    return (
        f"{n / len(labels):.0%} of the training examples are {classes[most]!r}: accuracy rewards answering it always; "
        "--metric f1 or matthews says more, and --class-weights balanced trains the rare classes"
    )


def check_metric(name: str) -> None:
    """Check the name of a metric.

    Raises:
        TaskError: There is no such metric.
    """
    if is_own(name):
        load_own(name)
    elif SAME_ORDER.get(name, name) not in METRICS:
        raise TaskError(f"{unknown_name('metric', name, METRICS)}; or give a function of yours as module:function")


def choose_metric(kind: Kind, asked: str | None = None) -> str:
    """Check the user's metric against the kind of task, or take the kind's default.

    Raises:
        TaskError: There is no such metric, it is for another kind of task, or its package is not installed.
    """
    if asked is None:
        require_seqeval(DEFAULTS[kind])
        return DEFAULTS[kind]
    check_metric(asked)
    if is_own(asked):
        return asked
    asked = SAME_ORDER.get(asked, asked)
    if METRICS[asked].kind != kind:
        fits = ", ".join(name for name, line in METRICS.items() if line.kind == kind)
        raise TaskError(f"metric {asked!r} is for {METRICS[asked].kind}, the task is a {kind}; choose one of: {fits}")
    require_extra(asked)
    require_seqeval(asked)
    return asked
