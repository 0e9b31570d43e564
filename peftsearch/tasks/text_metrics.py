"""Metrics of generation tasks: probabilities of the references, and comparisons of generated texts with them.

BLEU is sacrebleu's corpus BLEU with its own tokeniser (13a), ROUGE-L the F-measure of rouge-score without stemming;
both range from 0 to 1. The two packages come with the extra `generation`. Matches are shares of the texts that equal
one of their references: exactly, as SQuAD normalises answers (arXiv 1606.05250), or in their last number, as in
arithmetic (arXiv 2110.14168).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from peftsearch.errors import TaskError

PACKAGES = {"bleu": "sacrebleu", "rouge_l": "rouge_score"}
"""Packages that compute metrics, by metric; the other metrics need none."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"-?(?:\d[\d,]*)?\.?\d+")


def require_extra(metric: str) -> None:
    """Check that the package of a metric is installed.

    Raises:
        TaskError: The package is not installed.
    """
    if not is_installed(metric):
        raise TaskError(f"metric {metric!r} needs {PACKAGES[metric]}: pip install 'peftsearch[generation]'")


def is_installed(metric: str) -> bool:
    """Whether a metric can be computed, with its package installed if it needs one."""
    package = PACKAGES.get(metric)
    return package is None or find_spec(package) is not None


def log_likelihood(sums: Sequence[float], n_tokens: Sequence[int]) -> float:
    """Mean natural log-probability of the references' tokens, which is minus the logarithm of the perplexity.

    Args:
        sums: Log-probability of each reference.
        n_tokens: Number of tokens of each reference.
    """
    return sum(sums) / sum(n_tokens)


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of generated texts, each compared with all its references.

    Args:
        texts: One text for each prompt.
        references: At least one reference for each text.
    """
    from sacrebleu.metrics import BLEU

    most = max(map(len, references))
    # sacrebleu takes streams: the i-th reference of each text, None where a text has fewer.
    streams = [[own[i] if i < len(own) else None for own in references] for i in range(most)]
    return float(BLEU().corpus_score(list(texts), streams).score) / 100


def rouge_l_each(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """ROUGE-L of each text with its nearest reference."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(texts, references, strict=True)
    return [float(scorer.score_multi(list(own), text)["rougeL"].fmeasure) for text, own in pairs]


def exact_match_each(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """1 for each text that equals one of its references, apart from white space at its ends; else 0."""
    return _matches(texts, references, str.strip)


def normalised_match_each(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """1 for each text that equals one of its references without case, punctuation and articles; else 0."""
    return _matches(texts, references, normalised)


def number_match_each(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """1 for each text whose last number is that of one of its references; else 0, also without a number."""
    return _matches(texts, references, last_number)


def normalised(text: str) -> str:
    """A text in lower case, without punctuation, articles and further spaces."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def last_number(text: str) -> float | None:
    """The last number of a text; None without one. Commas between digits are left out."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _matches(texts: Sequence[str], references: Sequence[Sequence[str]], key: Callable[[str], object]) -> list[float]:
    made = [key(text) for text in texts]
    wanted = [{key(reference) for reference in own} - {None} for own in references]
    return [float(one in own) for one, own in zip(made, wanted, strict=True)]


EACH: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]] = {
    "rouge_l": rouge_l_each,
    "exact_match": exact_match_each,
    "normalised_match": normalised_match_each,
    "number_match": number_match_each,
}
"""Metrics that are means over the texts, by metric."""


def mean_of(metric: str) -> Callable[[Sequence[str], Sequence[Sequence[str]]], float]:
    """The mean of a metric of `EACH` over the texts."""

    def measure(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        each = EACH[metric](texts, references)
        return sum(each) / len(each)

    return measure
