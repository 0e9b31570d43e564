import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.design.budget import parse_budget
from peftsearch.errors import BudgetError

MINILM = 22_713_216


@pytest.mark.parametrize(
    ("text", "n_params"),
    [
        ("0.1%", 22_713),  # 22,713.216 rounded down
        ("0.5 %", 113_566),
        ("100%", MINILM),
        ("22_700", 22_700),
        ("22.7k", 22_700),
        ("1M", 1_000_000),
        (" 1.5m ", 1_500_000),
        (".1%", 22_713),
    ],
)
def test_forms(text, n_params):
    assert parse_budget(text, MINILM).n_params == n_params


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "above zero"),
        ("0%", "above zero"),
        ("-1%", "above zero"),
        ("200%", "at most 100%"),
        ("30M", "more than the backbone's 22,713,216"),
        ("0.001x", r"did you mean 0\.1%\?"),
        ("2x", r"did you mean 200%\?"),
        ("lots", "is not a budget"),
        ("", "is not a budget"),
        ("nan%", "is not a budget"),
        ("inf", "is not a budget"),
        ("1e4", "is not a budget|unknown unit"),
        ("22,700", "is not a budget"),
        ("10 apples", "unknown unit 'apples'"),
        ("0.5", r"for a share write 0\.5%"),
        ("0.000001%", "less than one parameter"),
        ("9" * 30, "more than the backbone's"),
    ],
)
def test_refused(text, message):
    with pytest.raises(BudgetError, match=message) as caught:
        parse_budget(text, MINILM)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@given(st.integers(1, 10**6), st.integers(1, 10**12))
def test_a_share_is_exact_and_never_rounds_up(hundredths_of_percent, n_backbone):
    text = f"{hundredths_of_percent / 10_000:.4f}%"
    expected = hundredths_of_percent * n_backbone // 1_000_000  # whole-number arithmetic, no floats
    if 1 <= expected <= n_backbone:
        assert parse_budget(text, n_backbone).n_params == expected
