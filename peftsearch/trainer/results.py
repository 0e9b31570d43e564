"""Score all seeds, keep the best weights, and write the output files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import exp
from pathlib import Path
from typing import Any

from torch import nn

from peftsearch.backbone.quiet import quiet
from peftsearch.design.references import Reference
from peftsearch.engine.generation import score_texts
from peftsearch.engine.snapshot import put
from peftsearch.files import write_atomically
from peftsearch.injection.checkpoint import save
from peftsearch.injection.inject import remove
from peftsearch.injection.reducing import reduce
from peftsearch.tasks.encoding.pairs import EncodedPairs
from peftsearch.trainer.card import model_card
from peftsearch.trainer.curve import curve_csv, curve_png
from peftsearch.trainer.folder import finish, snapshot_path
from peftsearch.trainer.loop import evaluation_options, split_score, train_seed
from peftsearch.trainer.plan import Plan
from peftsearch.trainer.snapshot import Course, read_best
from peftsearch.trainer.tracking import Log
from peftsearch.units import Scores


def train_all(plan: Plan, folder: Path, say: Callable[[str], None], log: Log) -> dict[str, Any]:
    """Train every seed, read the test split once, and write the folder's files.

    Args:
        plan: What to train.
        folder: Where; only the first process writes.
        say: Takes lines of progress.
        log: Takes the values of every evaluation.

    Returns:
        What `metrics.json` holds. Seeds that diverged are in it with their reason and without scores.
    """
    courses = [train_seed(plan, seed, snapshot_path(folder, seed), say, log) for seed in plan.seeds]
    plan.processes.wait()  # until the first process has written the last snapshot
    done = [course for course in courses if not course.reason]
    if plan.task.kind == "generation":
        written = {course.seed: _written(plan, folder, course, say) for course in done}
        tests = {seed: None if plan.data.test is None else s[plan.task.metric] for seed, s in written.items()}
        metrics = with_texts(plan, _metrics(plan, courses, tests), written)
    else:
        metrics = _metrics(plan, courses, {course.seed: _test(plan, folder, course) for course in done})
    if plan.processes.is_first:
        _write(plan, folder, courses, metrics)
        finish(folder, metrics)
    plan.processes.wait()
    return metrics


@contextmanager
def _trained(plan: Plan, folder: Path, seed: int) -> Iterator[nn.Module]:
    """The model with the best parameters of a seed."""
    with plan.ready(seed, choose=False) as model:
        put(model, read_best(snapshot_path(folder, seed)))
        yield model


def _test(plan: Plan, folder: Path, course: Course) -> float | None:
    """Score of the best parameters on the test split; None where there is none."""
    if plan.data.test is None:
        return None
    with _trained(plan, folder, course.seed):
        return split_score(plan, plan.data.test)


def _written(plan: Plan, folder: Path, course: Course, say: Callable[[str], None]) -> dict[str, float]:
    """All metrics of the texts that the best parameters write, on the test split or else on validation."""
    split = plan.data.test or plan.data.validation
    assert isinstance(split, EncodedPairs), "the task is a generation"
    say(f"seed {course.seed}: writes {len(split.groups)} texts")
    with _trained(plan, folder, course.seed) as model:
        return score_texts(model, split, plan.task.metric, **evaluation_options(plan))


def with_texts(plan: Plan, metrics: dict[str, Any], written: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Put the metrics of the texts, with the perplexity for the log-likelihood, beside the others."""
    split = plan.data.test or plan.data.validation
    assert isinstance(split, EncodedPairs), "the task is a generation"
    told = {seed: as_told(scores) for seed, scores in written.items()}
    names = dict.fromkeys(name for scores in told.values() for name in scores)
    metrics["majority"] = None
    metrics["texts"] = {
        "split": "validation" if plan.data.test is None else "test",
        "n_prompts": len(split.groups),
        **{name: summary([scores[name] for scores in told.values()]) for name in names},
    }
    for entry in metrics["seeds"]:
        entry["texts"] = told.get(entry["seed"])
    return metrics


def as_told(scores: Mapping[str, float]) -> dict[str, float]:
    """Metrics as people read them: the perplexity, at most e^700 so that it stays a number, for the log-likelihood."""
    perplexity = exp(min(700.0, -scores["log_likelihood"]))
    return {"perplexity": perplexity} | {k: v for k, v in scores.items() if k != "log_likelihood"}


def _metrics(plan: Plan, courses: Sequence[Course], tests: dict[int, float | None]) -> dict[str, Any]:
    done = [course for course in courses if not course.reason]
    best = max(done, key=lambda course: course.scores[course.best_step], default=None)
    return {
        "format": "peftsearch-metrics/1",
        "metric": plan.task.metric,
        "validation": summary([course.best for course in done]),
        "test": summary([tests[course.seed] for course in done]),
        "majority": plan.task.majority_score,
        "seed": None if best is None else best.seed,
        "n_params": plan.record.n_params,
        "n_changed": plan.record.n_changed,
        "n_head": plan.record.model.n_head,
        "n_train": len(plan.task.train),
        "n_validation": len(plan.task.validation),
        "n_test": 0 if plan.task.test is None else len(plan.task.test),
        "seeds": [
            {
                "seed": course.seed,
                "state": "diverged" if course.reason else "done",
                "reason": course.reason or None,
                "validation": None if course.reason else course.best,
                "test": tests.get(course.seed),
                "best_step": course.best_step,
                "steps": course.step,
                "train_s": round(course.train_s, 3),
            }
            for course in courses
        ],
    }


def summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean, standard deviation, n and the values of what is known; None without values."""
    return Scores(tuple(value for value in values if value is not None)).to_dict()


def _write(plan: Plan, folder: Path, courses: Sequence[Course], metrics: dict[str, Any]) -> None:
    write_atomically(folder / "curve.csv", curve_csv(courses, plan.task.metric))
    if (picture := curve_png(courses, plan.task.metric)) is not None:
        (folder / "curve.png").write_bytes(picture)
    if metrics["seed"] is None:
        return
    with _trained(plan, folder, metrics["seed"]) as model:
        _save(plan, folder, model)
    plan.loaded.tokenizer.save_pretrained(folder)
    write_atomically(folder / "README.md", model_card(plan.record, metrics))


def _save(plan: Plan, folder: Path, model: Any) -> None:
    if isinstance(plan.architecture, Reference):
        labels = dict(enumerate(plan.task.labels))
        model.config.id2label = labels or model.config.id2label
        model.config.label2id = {name: i for i, name in model.config.id2label.items()}
        with quiet():
            model.save_pretrained(folder)
        return
    task = plan.record.task.head() | {"max_length": plan.training.max_length, "dtype": plan.record.training.dtype}
    if reduce(model) == plan.architecture:
        save(model, folder, overwrite=True, task=task)
        return
    try:  # a smaller architecture is inside than the one that `ready` takes out
        save(model, folder, overwrite=True, task=task)
    finally:
        remove(model)
