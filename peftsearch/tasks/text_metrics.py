"""Metrics of a generation: of the probabilities of the references, and of generated texts against all references.

BLEU is sacrebleu's corpus BLEU with its own tokeniser (13a), ROUGE-L the F-measure of rouge-score without stemming;
both from 0 to 1. The two packages come with the extra `generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from peftsearch.errors import TaskError

PACKAGES = {"bleu": "sacrebleu", "rouge_l": "rouge_score"}
"""What computes a metric, where it is not this project."""


def require_extra(metric: str) -> None:
    """Check that what computes a metric is installed.

    Raises:
        TaskError: It is not.
    """
    if not is_installed(metric):
        raise TaskError(f"metric {metric!r} needs {PACKAGES[metric]}: pip install 'peftsearch[generation]'")


def is_installed(metric: str) -> bool:
    """Whether what computes a metric is there."""
    package = PACKAGES.get(metric)
    return package is None or find_spec(package) is not None


def log_likelihood(sums: Sequence[float], n_tokens: Sequence[int]) -> float:
    """Mean log-probability (natural logarithm) of a token of the references; minus the logarithm of the perplexity.

    Args:
        sums: Log-probability of each reference.
        n_tokens: Tokens of each.
    """
    return sum(sums) / sum(n_tokens)


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of generated texts, each against all its references.

    Args:
        texts: One for each prompt.
        references: At least one for each text.
    """
    from sacrebleu.metrics import BLEU

    most = max(map(len, references))
    # sacrebleu wants streams: the i-th reference of each text, None where a text has fewer.
    streams = [[own[i] if i < len(own) else None for own in references] for i in range(most)]
    return float(BLEU().corpus_score(list(texts), streams).score) / 100


def rouge_l(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over texts of `rouge_l_each`."""
    each = rouge_l_each(texts, references)
    return sum(each) / len(each)


def rouge_l_each(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """ROUGE-L of each text against the reference that it is nearest to."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(texts, references, strict=True)
    return [float(scorer.score_multi(list(own), text)["rougeL"].fmeasure) for text, own in pairs]
