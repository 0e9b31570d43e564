"""Metrics of extractive question answering, as SQuAD defines them (arXiv 1606.05250, sec. 6.1).

Answers are compared in lower case, without punctuation, articles and further spaces, each with the nearest of its
references. An answer that is empty says that the context has none (SQuAD 2.0, arXiv 1806.03822).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from peftsearch.tasks.text_metrics import normalised, normalised_match_each

ANSWER_F1 = "answer_f1"
References = Sequence[Sequence[str]]
"""The right answers of each example; none where the context has no answer."""


def answer_f1_each(answers: Sequence[str], references: References) -> list[float]:
    """F1 over the words of each answer and its nearest reference, 0 to 1."""
    return [
        max(_f1(answer, reference) for reference in own or [""])
        for answer, own in zip(answers, references, strict=True)
    ]


def answer_match_each(answers: Sequence[str], references: References) -> list[float]:
    """1 for each answer that equals one of its references; else 0."""
    return normalised_match_each(answers, [own or [""] for own in references])


def answer_f1(answers: Sequence[str], references: References) -> float:
    """The mean of `answer_f1_each`."""
    return sum(answer_f1_each(answers, references)) / len(answers)


def answer_match(answers: Sequence[str], references: References) -> float:
    """The share of answers that equal one of their references."""
    return sum(answer_match_each(answers, references)) / len(answers)


OF_ANSWERS = {ANSWER_F1: answer_f1_each, "answer_match": answer_match_each}
"""The numbers whose mean a metric is, by metric."""


def _f1(answer: str, reference: str) -> float:
    own, true = normalised(answer).split(), normalised(reference).split()
    if not own or not true:
        return float(own == true)
    common = sum((Counter(own) & Counter(true)).values())
    return 2 * common / (len(own) + len(true))
