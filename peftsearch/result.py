"""What a search found: the verdict, the table, `best.yaml` and `trials.csv`, all made from the stored history."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from peftsearch.architecture import Architecture
from peftsearch.backbone.anatomy import Backbone
from peftsearch.display import design_line, size_labels
from peftsearch.engines.job import Job
from peftsearch.injection import write_state
from peftsearch.objectives import MEASURES
from peftsearch.samplers.context import INTERRUPTED, KIND, STAGE, score_of
from peftsearch.setup import Setup, plain
from peftsearch.study import StudyFolder, state_path, to_yaml, write_atomically
from peftsearch.verdict import Candidate, Verdict, judge

if TYPE_CHECKING:
    from peftsearch.engines.local import LocalEngine
    from peftsearch.finalists import Finalist

BEST = "best.yaml"
_PACKAGES = ("peftsearch", "torch", "transformers", "datasets", "optuna", "accelerate")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores of one design over seeds."""

    values: tuple[float, ...]

    def to_dict(self) -> dict[str, Any] | None:
        """Mean, standard deviation (None below two), n and the values; None without values."""
        if not self.values:
            return None
        return {
            "mean": mean(self.values),
            "std": stdev(self.values) if len(self.values) > 1 else None,
            "n": len(self.values),
            "values": list(self.values),
        }

    def __str__(self) -> str:
        if not self.values:
            return ""
        spread = f" ± {stdev(self.values):.4f}" if len(self.values) > 1 else ""
        return f"{mean(self.values):.4f}{spread} (n={len(self.values)})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the result table."""

    name: str
    baseline: bool
    detail: str
    """The design in one line, or why there is no score."""
    n_params: int | None
    share: float | None
    """Share of the budget that is used."""
    search_score: float | None
    """Score at the search's fidelity; one seed."""
    validation: Scores
    test: Scores


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
    scores = {f.name: _confirmed(folder, f.name) for f in finalists}
    candidates = [
        Candidate(
            name=f.name,
            baseline=f.baseline,
            n_params=f.architecture.n_params,
            scores=tuple(scores[f.name].values()),
            hits=_hits(folder, f.name),
        )
        for f in finalists
    ]
    verdict = judge(
        candidates,
        majority=setup.task.majority_score,
        n_validation=len(setup.task.validation.labels),
        metric=setup.task.metric,
        n_steps=setup.strategy.confirm.steps,
    )
    if verdict is None:
        raise AssertionError("the search ends before its conclusion when no confirmation has a score")
    read = {verdict.pick.name} | ({verdict.best_baseline.name} if verdict.best_baseline else set())
    tests = {f.name: _test_scores(setup, folder, f, scores[f.name], engine) for f in finalists if f.name in read}
    verdict = _against_test(verdict, tests)
    rows = _rows(setup, folder, finalists, scores, tests)
    best = _best_yaml(setup, folder, next(f for f in finalists if f.name == verdict.pick.name), verdict, rows)
    write_atomically(folder.path / "trials.csv", _trials_csv(folder))
    write_atomically(folder.path / BEST, to_yaml(best))
    return Result(verdict=verdict, rows=rows, best=best)


def _confirmed(folder: StudyFolder, name: str) -> dict[int, float]:
    """Scores of a confirmed design by seed."""
    trials = folder.confirm.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {t.user_attrs["seed"]: score_of(t) for t in trials if t.user_attrs.get("name") == name}


def _hits(folder: StudyFolder, name: str) -> tuple[float, ...]:
    """Share of the seeds that predict each validation example right."""
    trials = folder.confirm.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    rows = [t.user_attrs.get("right", "") for t in trials if t.user_attrs.get("name") == name]
    return tuple(mean(int(hit) for hit in column) for column in zip(*rows, strict=True))


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
            if setup.task.test is None:
                return Scores(values=())
            score = engine.test_score(finalist.architecture, _state(setup, folder, finalist, seed, engine))
            kept[key] = score
            folder.confirm.set_user_attr("test_scores", kept)
        values.append(kept[key])
    return Scores(values=tuple(values))


def _state(setup: Setup, folder: StudyFolder, finalist: Finalist, seed: int, engine: LocalEngine) -> Path:
    """The trained parameters of one confirmation; trained again where another machine has kept them to itself."""
    path = state_path(folder.path, finalist.name, seed)
    if not path.exists():
        job = Job(
            architecture=finalist.architecture,
            learning_rate=finalist.design.learning_rate or setup.training.learning_rate,
            steps=setup.strategy.confirm.steps,
            seed=seed,
            keep_state=True,
        )
        write_state(engine.run(job).state or b"", path)
    return path


def _rows(
    setup: Setup,
    folder: StudyFolder,
    finalists: list[Finalist],
    scores: Mapping[str, Mapping[int, float]],
    tests: Mapping[str, Scores],
) -> tuple[Row, ...]:
    """Confirmed designs first, best mean on top; then the other baselines by their search score."""
    trials = [t for t in folder.search.get_trials(deepcopy=False) if not t.user_attrs.get(INTERRUPTED)]
    by_name = {t.user_attrs.get("name"): t for t in trials}
    rows = []
    for f in finalists:
        rows.append(
            Row(
                name=f.name,
                baseline=f.baseline,
                detail=design_line(f.design),
                n_params=f.architecture.n_params,
                share=f.architecture.n_params / setup.budget.n_params,
                search_score=score_of(by_name[f.name]),
                validation=Scores(values=tuple(scores[f.name].values())),
                test=tests.get(f.name, Scores(values=())),
            )
        )
    rows.sort(key=lambda r: -(mean(r.validation.values) if r.validation.values else float("-inf")))
    confirmed = {f.name for f in finalists}
    others = [t for name, t in by_name.items() if t.user_attrs.get(KIND) == "baseline" and name not in confirmed]
    others.sort(key=lambda t: -(score_of(t) if t.state == TrialState.COMPLETE else float("-inf")))
    return (*rows, *map(_unconfirmed, others))


def _unconfirmed(trial: FrozenTrial) -> Row:
    done = trial.state == TrialState.COMPLETE
    return Row(
        name=str(trial.user_attrs.get("name")),
        baseline=True,
        detail="" if done else str(trial.user_attrs.get("reason", trial.state.name.lower())),
        n_params=trial.user_attrs.get("n_params"),
        share=trial.user_attrs.get("share"),
        search_score=score_of(trial) if done else None,
        validation=Scores(values=()),
        test=Scores(values=()),
    )


def _best_yaml(
    setup: Setup, folder: StudyFolder, pick: Finalist, verdict: Verdict, rows: tuple[Row, ...]
) -> dict[str, Any]:
    from peftsearch.backbone.device import hardware

    row = next(r for r in rows if r.name == pick.name)
    backbone, task = setup.backbone, setup.task
    return {
        "format": "peftsearch-best/1",
        "verdict": {
            "kind": verdict.kind,
            "statement": verdict.statement,
            "settle": verdict.settle,
            "p_value": verdict.p_value,
            "tied": [c.name for c in verdict.tied],
        },
        "name": pick.name,
        "model": {
            "name": backbone.name,
            "revision": backbone.revision,
            "model_type": backbone.model_type,
            "n_params": backbone.n_params,
            "stacks": {stack.name: len(stack.blocks) for stack in backbone.stacks},
        },
        "task": {
            "name": task.name,
            "kind": task.kind,
            "source": task.source,
            "fingerprint": task.fingerprint,
            "labels": list(task.labels),
            "metric": task.metric,
            "majority_score": task.majority_score,
            "n_train": len(task.train.labels),
            "n_validation": len(task.validation.labels),
            "n_test": len(task.test.labels) if task.test else 0,
        },
        "budget": {
            "text": setup.budget.text,
            "n_params": setup.budget.n_params,
            "used": pick.architecture.n_params,
            "share_used": pick.architecture.n_params / setup.budget.n_params,
            "count_head": setup.options.count_head,
        },
        "design": plain(pick.design.to_dict()),
        "architecture": _labelled(pick.architecture, backbone),
        "training": {
            **plain(asdict(setup.training)),
            "learning_rate": pick.design.learning_rate or setup.training.learning_rate,
            "steps": setup.strategy.confirm.steps,
            "dtype": setup.settings["autocast"],
        },
        "scores": {
            "validation": row.validation.to_dict(),
            "test": row.test.to_dict(),
            "search": row.search_score,
        },
        "comparison": [_comparison(r) for r in rows],
        "stages": folder.search.user_attrs.get("stages", []),
        "seed": setup.options.seed,
        "space": setup.space.name,
        "strategy": setup.strategy.name,
        "study": str(folder.path),
        "hardware": hardware(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _labelled(architecture: Architecture, backbone: Backbone) -> dict[str, Any]:
    """The architecture with a readable size beside each number."""
    data, labels = architecture.to_dict(), size_labels(architecture, backbone)
    for entry in data["blocks"]:
        for method, facts in entry["methods"].items():
            facts["label"] = labels[entry["stack"], entry["block"], method]
    return data


def _comparison(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "baseline": row.baseline,
        "detail": row.detail,
        "n_params": row.n_params,
        "share": row.share,
        "search_score": row.search_score,
        "validation": row.validation.to_dict(),
        "test": row.test.to_dict(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


_COLUMNS = (
    "study", "number", "kind", "name", "stage", "state", "score", "n_params", "share", "steps", "seed",
    "learning_rate", "loss", "train_s", "wall_s", *(m for m in MEASURES if m != "params"), "reused_from", "reason",
    "design",
)  # fmt: skip  # one line a row of the file's header


def _trials_csv(folder: StudyFolder) -> str:
    import pandas as pd

    rows = []
    for study, name in ((folder.search, "search"), (folder.confirm, "confirm")):
        for t in study.get_trials(deepcopy=False):
            facts = t.user_attrs | t.user_attrs.get("measures", {})
            if t.user_attrs.get(INTERRUPTED):
                facts["reason"] = "interrupted"
            own = {
                "study": name,
                "number": t.number,
                "kind": "confirm" if name == "confirm" else facts.get(KIND, "search"),
                "stage": t.system_attrs.get(STAGE),
                "state": t.state.name.lower(),
                "score": score_of(t) if t.state == TrialState.COMPLETE else None,
                "design": json.dumps(facts.get("design")),
            }
            rows.append({**facts, **own})
    text: str = pd.DataFrame(rows, columns=list(_COLUMNS)).convert_dtypes().to_csv(index=False)
    return text


def result_table(result: Result, metric: str) -> Table:
    """The result for a terminal: the pick against every baseline."""
    has_test = any(r.test.values for r in result.rows)
    table = Table(title=f"validation {metric}, mean ± standard deviation over seeds", title_justify="left")
    table.add_column("design", no_wrap=True)
    for name in ("parameters", "of budget", "one short run", "confirmed", *(["test"] if has_test else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.rows:
        picked = row.name == result.verdict.pick.name
        cells = [
            "" if row.n_params is None else f"{row.n_params:,}",
            "" if row.share is None else f"{100 * row.share:.1f}%",
            "" if row.search_score is None else f"{row.search_score:.4f}",
            str(row.validation),
            *([str(row.test)] if has_test else []),
        ]
        name = f"{'→' if picked else ' '} {row.name}{' (baseline)' if row.baseline else ''}"
        table.add_row(name, *cells, style="bold" if picked else None)
    return table


def design_lines(result: Result) -> list[str]:
    """What the found designs are, and why a baseline has no score."""
    return [f"  {r.name}: {r.detail}" for r in result.rows if r.detail and (not r.baseline or r.search_score is None)]
