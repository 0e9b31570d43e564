"""What a search found: the verdict over the confirmed designs, made from the stored history and written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.references import references_of
from peftsearch.engine.job import Job
from peftsearch.files import to_yaml, write_atomically, write_state
from peftsearch.searcher.comparison import Row, Scores, make_rows, reference_rows
from peftsearch.searcher.outputs import BEST, make_best, trials_csv
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.verdict import Candidate, Verdict, hits_of, judge, packed_hits
from peftsearch.study.folder import StudyFolder, state_paths
from peftsearch.study.trials import score_of

if TYPE_CHECKING:
    from peftsearch.engine.local import LocalEngine
    from peftsearch.searcher.finalists import Finalist


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The outcome of a study."""

    verdict: Verdict
    rows: tuple[Row, ...]
    best: dict[str, Any]
    """The content of `best.yaml`."""


def conclude(setup: Setup, folder: StudyFolder, finalists: list[Finalist], engine: LocalEngine) -> Result:
    """Judge the confirmed designs, read the test split for the pick and the best baseline, write the files.

    Args:
        setup: The settings of the study.
        folder: The study.
        finalists: The confirmed designs.
        engine: Scores trained parameters on the test split.
    """
    trials = {f.name: _confirmed(folder, f.name) for f in finalists}
    scores = {name: {seed: score_of(t) for seed, t in own.items()} for name, own in trials.items()}
    candidates = [
        Candidate(
            name=f.name,
            baseline=f.baseline,
            n_params=f.architecture.n_params,
            scores=tuple(scores[f.name].values()),
            hits=hits_of([str(t.user_attrs.get("right", "")) for t in trials[f.name].values()]),
        )
        for f in finalists
    ]
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
    tests = {f.name: _test_scores(setup, folder, f, scores[f.name], engine) for f in finalists if f.name in read}
    verdict = _against_test(verdict, tests)
    rows = (
        *make_rows(folder.search, finalists, trials, tests, setup.budget.n_params),
        *reference_rows(folder.confirm, references_of(folder.confirm, setup.loaded)),
    )
    best = make_best(setup, folder, finalists, verdict, rows)
    write_atomically(folder.path / "trials.csv", trials_csv(folder))
    write_atomically(folder.path / BEST, to_yaml(best))
    return Result(verdict=verdict, rows=rows, best=best)


def _frozen(setup: Setup, folder: StudyFolder, engine: LocalEngine) -> Candidate | None:
    """The frozen model, which a generation is held against; scored once and then kept in the study."""
    if setup.suite.kind != "generation":
        return None
    kept = folder.confirm.user_attrs.get("frozen")
    if kept is None:
        score, right = engine.frozen()
        kept = {"score": score, "right": packed_hits(right)}
        folder.confirm.set_user_attr("frozen", kept)
    hits = hits_of([kept["right"]])
    return Candidate(name="frozen model", baseline=True, n_params=0, scores=(kept["score"],), hits=hits)


def _confirmed(folder: StudyFolder, name: str) -> dict[int, FrozenTrial]:
    """Trainings of a confirmed design by seed."""
    trials = folder.confirm.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {t.user_attrs["seed"]: t for t in trials if t.user_attrs.get("name") == name}


def _against_test(verdict: Verdict, tests: Mapping[str, Scores]) -> Verdict:
    """A winner on validation that does not lead on the test split is none."""
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
            f"{verdict.best_baseline.mean:.4f} of {verdict.best_baseline.name}), but not on the test split "
            f"({mean(own):.4f} against {mean(other):.4f})."
        ),
        settle="More validation examples, or another --seed, would show which of the two to believe.",
    )


def _test_scores(
    setup: Setup, folder: StudyFolder, finalist: Finalist, scores: Mapping[int, float], engine: LocalEngine
) -> Scores:
    """Test scores of a finalist; measured once and then kept in the study."""
    kept: dict[str, float] = dict(folder.confirm.user_attrs.get("test_scores", {}))
    values = []
    for seed in scores:
        key = f"{finalist.name}/{seed}"
        if key not in kept:
            if not setup.suite.n_test:
                return Scores(values=())
            states = _states(setup, folder, finalist, seed, engine)
            kept[key] = mean(engine.test_scores(finalist.architecture, states))
            folder.confirm.set_user_attr("test_scores", kept)
        values.append(kept[key])
    return Scores(values=tuple(values))


def _states(setup: Setup, folder: StudyFolder, finalist: Finalist, seed: int, engine: LocalEngine) -> list[Path]:
    """The trained parameters of one confirmation; trained again where another machine has kept them to itself."""
    paths = state_paths(folder.path, finalist.name, seed, len(setup.suite.tasks))
    if not all(path.exists() for path in paths):
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
