"""Metrics of generation tasks: probabilities of the references, and comparisons of generated texts with them.

BLEU is sacrebleu's corpus BLEU with its own tokeniser (13a), ROUGE-L the F-measure of rouge-score without stemming;
both range from 0 to 1. The two packages come with the extra `generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from peftsearch.errors import TaskError

PACKAGES = {"bleu": "sacrebleu", "rouge_l": "rouge_score"}
"""Packages that compute metrics, by metric; the other metrics need none."""


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


def rouge_l(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean of `rouge_l_each` over the texts."""
    each = rouge_l_each(texts, references)
    return sum(each) / len(each)


def rouge_l_each(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """ROUGE-L of each text with its nearest reference."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(texts, references, strict=True)
    return [float(scorer.score_multi(list(own), text)["rougeL"].fmeasure) for text, own in pairs]
