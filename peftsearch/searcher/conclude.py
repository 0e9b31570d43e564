"""Conclude a search: reach the verdict on the confirmed designs from the stored history, and write the results."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from peftsearch.design.references import make_reference
from peftsearch.files import to_yaml, write_atomically
from peftsearch.searcher.comparison import make_rows, reference_rows
from peftsearch.searcher.confirmation import current, measured, rules_of
from peftsearch.searcher.outputs import make_best, trials_csv
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.verdict import Verdict, judge
from peftsearch.study.best import BEST, Best, best_content
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.folder import StudyFolder
from peftsearch.study.hits import hits_of, packed_hits
from peftsearch.study.notes import (
    Frozen,
    add_references,
    frozen_of,
    keep_frozen,
)
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind, not_interrupted
from peftsearch.units import Scores

if TYPE_CHECKING:
    from peftsearch.engine.local import LocalEngine


@dataclass(frozen=True, kw_only=True, slots=True)
class Conclusion:
    """The outcome of a study."""

    verdict: Verdict
    rows: tuple[Confirmed, ...]
    best: Best


def conclude(setup: Setup, folder: StudyFolder, finalists: list[Confirmed], engine: LocalEngine) -> Conclusion:
    """Judge the confirmed designs and write the files.

    Args:
        setup: The settings of the study.
        folder: The study.
        finalists: The confirmed designs.
        engine: Engine that scores the frozen model of a generation task.
    """
    confirmations = current(folder.confirm, setup)
    candidates = measured(confirmations, finalists)
    verdict = judge(candidates, rules_of(setup, _frozen(setup, folder, engine)))
    if verdict is None:
        raise AssertionError("the search ends before its conclusion when no confirmation has a score")
    rows = (
        *make_rows([TrialRecord.of(t, Kind.SEARCH) for t in not_interrupted(folder.search)], candidates),
        *reference_rows(confirmations, [make_reference(n, setup.loaded) for n in add_references(folder.confirm)]),
    )
    best = make_best(setup, folder, finalists, verdict, rows)
    write_atomically(folder.path / "trials.csv", trials_csv(folder))
    write_atomically(folder.path / BEST, to_yaml(best_content(best)))
    return Conclusion(verdict=verdict, rows=rows, best=best)


def _frozen(setup: Setup, folder: StudyFolder, engine: LocalEngine) -> Confirmed | None:
    """The frozen model, the baseline for generation tasks; scored once, then kept in the study."""
    if setup.suite.kind != "generation":
        return None
    kept = frozen_of(folder.confirm)
    if kept is None:
        tests = engine.frozen()
        score = mean(test.score for test in tests if test.score is not None)
        kept = Frozen(score=score, right=packed_hits([test.right for test in tests]))
        keep_frozen(folder.confirm, kept)
    hits = hits_of([kept.right])
    return Confirmed(name="frozen model", baseline=True, n_params=0, test=Scores((kept.score,)), hits=hits)
