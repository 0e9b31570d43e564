"""The number of steps of a search, counted by hand, and the length that a time allows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from peftsearch.cli.main import main
from peftsearch.samplers.strategy import ConfirmFidelity, SearchFidelity, Strategy
from peftsearch.searcher import planning
from peftsearch.searcher.lengths import choose_lengths
from peftsearch.searcher.options import SearchOptions, parse_time
from peftsearch.searcher.planning import plan_within, planned_steps
from peftsearch.study.trials import busy_seconds
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
    """10 baselines and 12 trials to step 30; 4 of each to 100, those again; 5 and 2 baselines more at two rates; 25
    confirmed."""
    search = SearchFidelity(rungs=(0.3, 1.0), keep=3, seeds=2, rates=(0.4, 2.5))
    lengths = choose_lengths(search, n_train=[1600], batch_size=16, steps=100)
    setup: Any = Setup(search=search, lengths=lengths)
    by_hand = 22 * 30 + (4 + 4) * 70 + (2 + 2) * 100 + (5 + 2) * (2 * 30 + 70) + 25 * 100
    assert planned_steps(setup, 10, 12, 25) == by_hand


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2h30m", 9000), ("1h 5min", 3900), ("1d", 86400)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.slow
def test_a_resumed_run_keeps_the_length_that_its_time_gave(place, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, model, files = place
    base = [w for w in arguments(model, files, tmp_path, "--strategy", QUICK) if w not in {"--steps", "6"}]
    argv = [*base, "--time", "20s"]
    monkeypatch.setattr("peftsearch.searcher.planning.steps_within", lambda *_: 33)
    assert main(argv) == 0
    monkeypatch.setattr("peftsearch.searcher.run.plan_within", lambda *_: pytest.fail("measured again"))
    assert main([*argv, "--margin", "2"]) == 0
    stored = yaml.safe_load((tmp_path / "r" / "settings.yaml").read_text())
    assert stored["options"]["search"]["margin"] == 2, "workers go by the options of the last start"
    assert {t.user_attrs["steps"] for t in study(tmp_path / "r", "confirm").trials} == {33}
    assert main([*argv, "--steps", "5"]) == 2
    longer = [w for w in argv if w not in {"--trials", "14"}]
    assert main([*longer, "--trials", "15"]) == 2, "a number that the user gives is not replaced by the plan's"


@pytest.mark.parametrize(
    ("cut", "n_arms", "expected"), [(2, 5, 5 * 2 + 3 * 3), (0, 5, 25), (5, 5, 25), (2, 2, 10), (2, 3, 15)]
)
def test_trainings_up_to_the_first_look_by_hand(cut: int, n_arms: int, expected: int) -> None:
    assert ConfirmFidelity(looks=(5, 10), cut=cut).n_trainings(n_arms) == expected


OWN = Strategy(
    name="race", trials=12, search=SearchFidelity(seeds=2), confirm=ConfirmFidelity(looks=(5, 10), best=2, baselines=2)
)


def plan(monkeypatch: pytest.MonkeyPatch, work: float, *, staged: bool = False, **chosen: Any) -> Any:
    """The plan where trainings of `work` steps can be afforded at the strategy's own breadth."""

    def steps(_: float, __: Any, strategy: Strategy, ___: Any) -> int:
        parts = strategy.trials + strategy.confirm.n_trainings(strategy.confirm.n_arms) + 4 * strategy.search.seeds
        return int(work * (12 + 19 + 8) / parts)

    monkeypatch.setattr(planning, "steps_within", steps)
    monkeypatch.setattr(planning, "fit", lambda *_: None)
    monkeypatch.setattr(planning, "_works_with", lambda *_: not staged)
    setup: Any = SimpleNamespace(
        strategy=OWN,
        fitting=[SimpleNamespace(design=SimpleNamespace(tunable=True))],
        lengths=SimpleNamespace(steps=500),
        options=SimpleNamespace(search=SearchOptions(**chosen)),
        backbone=None,
        budget=None,
    )
    engine: Any = SimpleNamespace(calibrate=lambda _: (0.1, 1.0))
    return plan_within(time.monotonic() + 60, setup, engine, 1)


def test_more_time_brings_more_trials_and_less_time_shorter_trainings_then_fewer(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    plans = [plan(monkeypatch, work) for work in (10_000, 600, 500, 350, 290, 200, 100, 2)]
    assert [p.strategy.trials for p in plans] == [48, 18, 12, 12, 8, 8, 4, 4]
    assert [p.steps for p in plans][:4] == [500, 500, 500, 350]
    assert plans[-1].steps == planning.FEWEST_STEPS
    assert plans[-1].strategy.confirm.looks == (4, 10)
    assert all(p.steps <= 500 for p in plans)


def test_rungs_too_short_to_tell_rates_apart_try_none(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    found = [plan(monkeypatch, work).strategy.search.rates for work in (10_000, 60, 30, 2)]
    assert found == [(0.4, 2.5), (0.4, 2.5), (), ()]


def test_a_strategy_whose_stages_need_its_trials_keeps_them(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    found = [plan(monkeypatch, work, staged=True) for work in (10_000, 2)]
    assert [p.strategy.trials for p in found] == [12, 12]
    assert found[1].strategy.confirm.looks == (4, 10)


def test_what_the_user_chose_stays(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    chosen = {"trials": 12, "seeds": 10, "confirm_baselines": 2}
    for work in (10_000, 2):
        found = plan(monkeypatch, work, **chosen).strategy
        assert (found.trials, found.confirm.looks, found.confirm.baselines) == (12, (5, 10), 2)


def test_time_is_counted_once_where_trials_overlap_and_not_while_the_run_was_stopped() -> None:
    def at(start: int, stop: int, **facts: Any) -> Any:
        begun = datetime(2026, 1, 1)
        return SimpleNamespace(
            datetime_start=begun + timedelta(seconds=start),
            datetime_complete=begun + timedelta(seconds=stop),
            user_attrs=facts,
        )

    assert busy_seconds([]) == 0
    assert busy_seconds([at(0, 10), at(5, 12), at(6, 8)]) == 12
    assert busy_seconds([at(15, 20), at(0, 10)]) == 20  # five seconds between two trials
    assert busy_seconds([at(0, 10), at(1000, 1010)]) == 20
    killed = at(10, 36_000, interrupted=True)  # its end is when the next process noticed
    assert busy_seconds([at(0, 10), killed, at(36_000, 36_010)]) == 20
    assert busy_seconds([at(0, 10), at(10, 14, interrupted=True, by_user=True)]) == 14
