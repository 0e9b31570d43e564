"""Rows of the result: confirmed designs, the other baselines, and the references."""

from __future__ import annotations

from collections.abc import Sequence

from peftsearch.design.references import Reference
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import State
from peftsearch.units import Scores


def make_rows(search: Sequence[TrialRecord], finalists: Sequence[Confirmed]) -> tuple[Confirmed, ...]:
    """List the confirmed designs, best mean first, then the other baselines by their search score.

    Args:
        search: Trials of the search, including baselines, excluding interrupted ones.
        finalists: The confirmed designs with their scores.
    """
    rows = sorted(finalists, key=lambda row: -row.mean)
    confirmed = {f.name for f in finalists}
    by_name = {t.name: t for t in search}  # of several rungs the last
    others = [t for name, t in by_name.items() if t.is_baseline and name not in confirmed and t.facts.arm is None]
    others.sort(key=lambda t: -(float("-inf") if t.score is None else t.score))
    return (*rows, *map(_unconfirmed, others))


def reference_rows(confirm: Sequence[TrialRecord], references: Sequence[Reference]) -> tuple[Confirmed, ...]:
    """List the references in the study's order.

    Args:
        confirm: Trials of the confirmation, excluding interrupted ones.
        references: The study's references.
    """
    rows = []
    for reference in references:
        own = [t for t in confirm if t.name == reference.name]
        done = [t for t in own if t.state == State.COMPLETE]
        reasons = [t.reason for t in own if t.reason]
        tests = [t.facts.test_score for t in done if t.facts.test_score is not None]
        rows.append(
            Confirmed(
                name=reference.name,
                detail=reference.detail if done else next(iter(reasons), ""),
                n_params=reference.n_params,
                n_changed=reference.n_params,
                validation=_validation(done),
                test=Scores(tuple(tests)),
                tasks=scores_by_task(done),
                reference=True,
            )
        )
    return tuple(rows)


def _validation(trainings: Sequence[TrialRecord]) -> Scores:
    return Scores(tuple(t.score for t in trainings if t.score is not None))


def scores_by_task(trainings: Sequence[TrialRecord]) -> dict[str, Scores]:
    """Scores of each task over the seeds; empty for a single task."""
    stated = [t.facts.task_scores for t in trainings if t.facts.task_scores]
    return {task: Scores(tuple(scores[task] for scores in stated)) for task in (stated[0] if stated else ())}


def _unconfirmed(trial: TrialRecord) -> Confirmed:
    done = trial.state == State.COMPLETE
    return Confirmed(
        name=trial.name,
        baseline=True,
        detail="" if done else trial.reason or str(trial.state),
        n_params=trial.facts.n_params,
        n_changed=trial.n_changed,
        share=trial.facts.share,
        search_score=trial.score,
        search_loss=trial.facts.loss,
    )
