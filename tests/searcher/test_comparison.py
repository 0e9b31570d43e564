"""The table of a result fits the terminal: nothing is cut off, columns are left out from the least telling on."""

from io import StringIO

import pytest
from rich.console import Console

from peftsearch.cli.tables import comparison_table
from peftsearch.study.confirmed import Confirmed
from peftsearch.units import Scores


def row(name, n_params, n_changed, **more):
    scores = Scores(values=(0.91, 0.93))
    own = {"baseline": False, "share": 0.98, "search_score": 0.9012, "validation": scores, "test": scores} | more
    return Confirmed(name=name, detail="", n_params=n_params, n_changed=n_changed, **own)


ROWS = (
    row("trial 14", 22_694, 1_769_472),
    row("s4-paper", 22_666, 609_418, baseline=True, validation=Scores(values=()), test=Scores(values=())),
    row("full", 22_713_216, 22_713_216, reference=True, share=None, search_score=None),
)


def shown(width, rows=ROWS):
    console = Console(file=StringIO(), width=width)
    console.print(comparison_table(rows, "trial 14", "accuracy", console))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("width", "there", "left_out"),
    [
        (160, ["1,769,472", "0.9200 ± 0.0141 (n=2)", "of budget", "in the search"], []),
        (130, ["22,694", "0.9200 ± 0.0141 (n=2)", "of budget", "in the search", "exports to"], ["1,769,472"]),
        (115, ["1.8M", "22.7k", "22.7M", "over 2 seeds", "share", "search", "98.0%", "exports to"], ["n=2"]),
        (95, ["22.7k", "share", "search", "98.0%", "0.9012"], ["1.8M", "exports to"]),
        (82, ["22.7k", "search", "0.9012"], ["share", "1.8M"]),
        (74, ["22.7k", "0.9200 ± 0.0141"], ["share", "search"]),
    ],
)
def test_it_fits(width, there, left_out):
    text = shown(width)
    assert "…" not in text
    assert all(part in text for part in ["→ trial 14", "s4-paper (baseline)", "full (reference)", *there])
    assert not any(part in text for part in left_out)


def test_unequal_numbers_of_seeds_are_told():
    more = row("lora", 21_504, 1_769_472, validation=Scores(values=(0.5,)))
    assert "over 1 to 2 seeds" in shown(100, (*ROWS, more))


def test_tasks_have_a_column_each():
    tasks = {"rte": Scores(values=(0.6, 0.7)), "mrpc": Scores(values=(0.8,))}
    text = shown(160, (row("trial 14", 1, 2, tasks=tasks),))
    assert "rte" in text
    assert "0.6500" in text
    assert "0.8000" in text
