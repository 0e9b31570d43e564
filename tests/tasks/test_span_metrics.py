"""The metrics of answers, against values worked out by hand as SQuAD's script does."""

import pytest

from peftsearch.tasks.span_metrics import answer_f1_each, answer_match_each

CASES = [
    ("the old inn", ["Old Inn!"], 1.0, 1.0),
    ("old inn", ["inn", "the inn in town"], 2 / 3, 0.0),
    ("inn inn", ["inn"], 2 / 3, 0.0),
    ("", [], 1.0, 1.0),
    ("inn", [], 0.0, 0.0),
    ("", ["inn"], 0.0, 0.0),
]


@pytest.mark.parametrize(("answer", "references", "f1", "match"), CASES)
def test_scores_are_those_of_the_nearest_reference(answer, references, f1, match):
    assert answer_f1_each([answer], [references]) == [pytest.approx(f1)]
    assert answer_match_each([answer], [references]) == [match]
