"""Metrics of a generation against closed forms and the libraries' own word."""

import importlib.util
import math

import pytest
from sacrebleu import sentence_bleu

from peftsearch.errors import TaskError
from peftsearch.tasks.metrics import choose_metric
from peftsearch.tasks.text_metrics import EACH, bleu, last_number, log_likelihood, mean_of, normalised, rouge_l_each

CAT = "the cat sat on the mat today"


def test_log_likelihood_is_minus_the_logarithm_of_the_perplexity():
    """A model that gives every token 1 in 8 has perplexity 8, whatever the lengths."""
    lengths = [3, 5]
    score = log_likelihood([-n * math.log(8) for n in lengths], lengths)
    assert math.exp(-score) == pytest.approx(8)


def test_bleu_of_one_text_is_sacrebleus_and_from_0_to_1():
    references = ["the cat sat on a mat", "a cat was on the mat today"]
    assert bleu([CAT], [references]) == pytest.approx(sentence_bleu(CAT, references).score / 100)
    assert bleu([CAT], [[CAT]]) == pytest.approx(1.0)


def test_bleu_takes_different_numbers_of_references():
    other = "an old inn stands in the north"
    assert bleu([CAT, other], [["no match here at all", CAT], [other]]) == pytest.approx(1.0)


def test_bleu_is_of_the_corpus_and_no_mean():
    """Brevity counts over the corpus: a long text makes up for a short one."""
    texts, references = ["the cat sat on the mat today", "an old inn"], [[CAT], ["an old inn stands there"]]
    single = [bleu([t], [r]) for t, r in zip(texts, references, strict=True)]
    assert bleu(texts, references) != pytest.approx(sum(single) / 2, abs=0.01)


def test_rouge_l_by_hand():
    """Longest common subsequence `the sat mat` (3): precision 3/4, recall 3/3."""
    assert rouge_l_each(["the dog sat mat"], [["the sat mat"]]) == [pytest.approx(2 * 0.75 / 1.75)]


def test_rouge_l_takes_the_nearest_reference_and_the_mean_over_texts():
    assert mean_of("rouge_l")([CAT, "no"], [["far away", CAT], ["yes"]]) == pytest.approx(0.5)


def test_perplexity_may_be_asked_for():
    assert choose_metric("generation", "perplexity") == "log_likelihood"


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setattr("peftsearch.tasks.text_metrics.find_spec", lambda name: None)
    assert importlib.util.find_spec("sacrebleu") is not None
    with pytest.raises(TaskError, match=r"metric 'bleu' needs sacrebleu: pip install 'peftsearch\[generation\]'"):
        choose_metric("generation", "bleu")


@pytest.mark.parametrize(
    ("metric", "texts", "references", "wanted"),
    [
        ("exact_match", [" yes ", "Yes", "no"], [["yes"], ["yes"], ["maybe", "no"]], [1, 0, 1]),
        ("normalised_match", ["The  Eiffel Tower!", "a tower"], [["eiffel tower"], ["the towers"]], [1, 0]),
        (
            "number_match",
            ["so 3 + 4 = 7.", "about 1,200", "none", "-2"],
            [["7"], ["1200.0"], ["none"], ["2"]],
            [1, 1, 0, 0],
        ),
    ],
)
def test_matches_are_ones_and_zeros(metric, texts, references, wanted):
    assert EACH[metric](texts, references) == wanted
    assert mean_of(metric)(texts, references) == pytest.approx(sum(wanted) / len(wanted))


def test_what_is_compared():
    assert normalised("An apple, a day; THE doctor.") == "apple day doctor"
    assert [last_number(text) for text in ("1,234.5 and .5", "x-7", "no", "3 4")] == [0.5, -7.0, None, 4.0]
