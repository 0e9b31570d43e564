"""Conclude a search: reach the verdict on the confirmed designs from the stored history, and write the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from peftsearch.design.references import make_reference
from peftsearch.engine.job import Job
from peftsearch.files import to_yaml, write_atomically, write_state
from peftsearch.searcher.comparison import make_rows, reference_rows, with_scores
from peftsearch.searcher.outputs import make_best, trials_csv
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.verdict import Verdict, judge
from peftsearch.study.best import BEST, Best, best_content
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.folder import StudyFolder, state_paths
from peftsearch.study.hits import hits_of, packed_hits
from peftsearch.study.notes import (
    Frozen,
    add_references,
    frozen_of,
    keep_frozen,
    keep_test_scores,
    test_scores_of,
)
from peftsearch.study.trials import Kind, State, TrialRecord, not_interrupted
from peftsearch.units import Scores

if TYPE_CHECKING:
    from peftsearch.engine.local import LocalEngine


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The outcome of a study."""

    verdict: Verdict
    rows: tuple[Confirmed, ...]
    best: Best


def conclude(setup: Setup, folder: StudyFolder, finalists: list[Confirmed], engine: LocalEngine) -> Result:
    """Judge the confirmed designs, score the pick and the best baseline on the test split, and write the files.

    Args:
        setup: The settings of the study.
        folder: The study.
        finalists: The confirmed designs.
        engine: Engine that scores trained parameters on the test split.
    """
    confirmations = [TrialRecord.of(t, Kind.CONFIRM) for t in not_interrupted(folder.confirm)]
    trainings = {f.name: _trainings(confirmations, f.name) for f in finalists}
    candidates = [with_scores(f, trainings[f.name]) for f in finalists]
    verdict = judge(
        candidates,
        majority=setup.suite.majority_score,
        n_validation=setup.suite.n_validation,
        metric=setup.suite.metric,
        n_steps=setup.strategy.confirm.steps,
        frozen=_frozen(setup, folder, engine),
    )
    if verdict is None:
        raise AssertionError("the search ends before its conclusion when no confirmation has a score")
    read = {verdict.pick.name} | ({verdict.best_baseline.name} if verdict.best_baseline else set())
    tests = {f.name: _test_scores(setup, folder, f, trainings[f.name], engine) for f in candidates if f.name in read}
    verdict = _against_test(verdict, tests)
    rows = (
        *make_rows([TrialRecord.of(t, Kind.SEARCH) for t in not_interrupted(folder.search)], candidates, tests),
        *reference_rows(confirmations, [make_reference(n, setup.loaded) for n in add_references(folder.confirm)]),
    )
    best = make_best(setup, folder, finalists, verdict, rows)
    write_atomically(folder.path / "trials.csv", trials_csv(folder))
    write_atomically(folder.path / BEST, to_yaml(best_content(best)))
    return Result(verdict=verdict, rows=rows, best=best)


def _frozen(setup: Setup, folder: StudyFolder, engine: LocalEngine) -> Confirmed | None:
    """The frozen model, the baseline for generation tasks; scored once, then kept in the study."""
    if setup.suite.kind != "generation":
        return None
    kept = frozen_of(folder.confirm)
    if kept is None:
        score, right = engine.frozen()
        kept = Frozen(score=score, right=packed_hits(right))
        keep_frozen(folder.confirm, kept)
    scores, hits = Scores((kept.score,)), hits_of([kept.right])
    return Confirmed(name="frozen model", baseline=True, n_params=0, validation=scores, hits=hits)


def _trainings(confirmations: Sequence[TrialRecord], name: str) -> list[TrialRecord]:
    """Completed trainings of a confirmed design, one per seed."""
    own = [t for t in confirmations if t.name == name and t.state == State.COMPLETE]
    return list({t.facts.seed: t for t in own}.values())


def _against_test(verdict: Verdict, tests: Mapping[str, Scores]) -> Verdict:
    """Turn a winner on validation into a tie if it does not lead on the test split."""
    if verdict.kind != "winner" or verdict.best_baseline is None:
        return verdict
    own, other = tests[verdict.pick.name].values, tests[verdict.best_baseline.name].values
    if not own or not other or mean(own) > mean(other):
        return verdict
    return replace(
        verdict,
        kind="tie",
        p_value=None,
        statement=(
            f"No winner: {verdict.pick.name} leads on validation ({verdict.pick.mean:.4f} against "
            f"{verdict.best_baseline.mean:.4f} for {verdict.best_baseline.name}), but not on the test split "
            f"({mean(own):.4f} against {mean(other):.4f})."
        ),
        settle="Use more validation examples or another --seed to find out which of the two is better.",
    )


def _test_scores(
    setup: Setup, folder: StudyFolder, finalist: Confirmed, trainings: Sequence[TrialRecord], engine: LocalEngine
) -> Scores:
    """Test scores of a finalist; measured once, then kept in the study."""
    assert finalist.architecture is not None, "a finalist has its sizes"
    kept, values = test_scores_of(folder.confirm), []
    for seed in (t.facts.seed or 0 for t in trainings):
        key = f"{finalist.name}/{seed}"
        if key not in kept:
            if not setup.suite.n_test:
                return Scores()
            states = _states(setup, folder, finalist, seed, engine)
            kept[key] = mean(engine.test_scores(finalist.architecture, states))
            keep_test_scores(folder.confirm, kept)
        values.append(kept[key])
    return Scores(values=tuple(values))


def _states(setup: Setup, folder: StudyFolder, finalist: Confirmed, seed: int, engine: LocalEngine) -> list[Path]:
    """Files of the trained parameters of one confirmation; trained again if they are on another machine only."""
    paths = state_paths(folder.path, finalist.name, seed, len(setup.suite.tasks))
    if not all(path.exists() for path in paths):
        assert finalist.architecture is not None, "a finalist has its sizes"
        assert finalist.design is not None, "a finalist has its design"
        job = Job(
            architecture=finalist.architecture,
            learning_rate=finalist.design.learning_rate or setup.training.learning_rate,
            steps=setup.strategy.confirm.steps,
            seed=seed,
            keep_state=True,
            measure=False,
        )
        for state, path in zip(engine.run(job).states, paths, strict=True):
            write_state(state, path)
    return paths
