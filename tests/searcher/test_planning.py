"""The number of steps of a search, counted by hand, and the length that a time allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from peftsearch.cli.main import main
from peftsearch.samplers.strategy import ConfirmFidelity, SearchFidelity
from peftsearch.searcher.lengths import choose_lengths
from peftsearch.searcher.options import parse_time
from peftsearch.searcher.planning import planned_steps
from tests.runs import QUICK, arguments, study


@dataclass
class Setup:
    """What the plan reads of a setup."""

    search: SearchFidelity
    lengths: Any
    confirm: ConfirmFidelity = field(default_factory=ConfirmFidelity)

    @property
    def strategy(self) -> Any:
        return SimpleNamespace(search=self.search, confirm=self.confirm)


def test_steps_of_a_search_by_hand() -> None:
    """10 baselines and 12 trials to step 30; a third of each to 100; 5 designs at two more rates; 25 confirmations."""
    search = SearchFidelity(rungs=(0.3, 1.0), keep=3, rates=(0.4, 2.5))
    lengths = choose_lengths(search, n_train=[1600], batch_size=16, steps=100)
    setup: Any = Setup(search=search, lengths=lengths)
    by_hand = 22 * 30 + (4 + 4) * 70 + 5 * (2 * 30 + 70) + 25 * 100
    assert planned_steps(setup, 10, 12, 25) == by_hand


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2h30m", 9000), ("1h 5min", 3900), ("1d", 86400)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


def test_a_resumed_run_keeps_the_length_that_its_time_gave(place, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, model, files = place
    base = [w for w in arguments(model, files, tmp_path, "--strategy", QUICK) if w not in {"--steps", "6"}]
    argv = [*base, "--time", "20s"]
    monkeypatch.setattr("peftsearch.searcher.run.steps_within", lambda *_: 7)
    assert main(argv) == 0
    monkeypatch.setattr("peftsearch.searcher.run.steps_within", lambda *_: pytest.fail("measured again"))
    assert main(argv) == 0
    assert {t.user_attrs["steps"] for t in study(tmp_path / "r", "confirm").trials} == {7}
    assert main([*argv, "--steps", "5"]) == 2
