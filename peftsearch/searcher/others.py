"""Show the trials that other processes of a study train."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.design import Design
from peftsearch.design.text import design_line
from peftsearch.searcher.progress import Ending, Reporter, TrialLine
from peftsearch.study.folder import StudyFolder
from peftsearch.study.trials import facts_of, is_interrupted, phase_of, stage_of
from peftsearch.study.unseen import Unseen

_ENDINGS: dict[TrialState, Ending] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}


class Others:
    """The trials that other processes finish from now on.

    Args:
        folder: The study.
        reporter: Receiver of every such trial.
    """

    def __init__(self, folder: StudyFolder, reporter: Reporter) -> None:
        self._folder = folder
        self._reporter = reporter
        self._ended = Unseen(folder)

    def show(self) -> None:
        """Show what was finished since the last call."""
        for study, trial in self._ended.take():
            if facts_of(trial).owner not in (None, self._folder.owner) and not is_interrupted(trial):
                self._show(trial, is_confirmed=study is self._folder.confirm)

    def _show(self, trial: FrozenTrial, *, is_confirmed: bool) -> None:
        facts = facts_of(trial)
        detail = "" if facts.design is None else design_line(Design.from_dict(facts.design))
        line = TrialLine(
            phase=phase_of(facts.kind, is_confirmed=is_confirmed),
            stage=stage_of(trial),
            name=str(facts.name),
            state="does not fit" if facts.infeasible else _ENDINGS.get(trial.state, "failed"),
            score=facts.score,
            loss=facts.loss,
            value=None if is_confirmed else facts.value,
            n_params=facts.n_params,
            detail=facts.reason or detail,
        )
        self._reporter.trial(line, (facts.steps or 0) - (facts.first or 0))
