"""A run's folder built by hand, as `peftsearch run` writes it: settings, Optuna studies, best.yaml. Trains nothing."""

import random
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev

import optuna
import sqlalchemy
import yaml
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.design import Design
from peftsearch.design.grouping import group_of_blocks
from peftsearch.design.space import load_space
from peftsearch.engine.settings import TrainingSettings
from peftsearch.files import plain, to_plain, to_yaml
from peftsearch.samplers.stages import ChoiceRecord, StageRecord
from peftsearch.samplers.strategy import load_strategy
from peftsearch.searcher.options import NOT_STORED, RunOptions, SearchOptions

METHODS = ("adapter", "prefix", "bitfit", "lora")
N_BLOCKS = 6
BUDGET = 22_713


def write_study(
    folder: Path,
    n_trials: int = 40,
    *,
    seed: int = 0,
    finished: bool = True,
    names: dict[int, str] | None = None,
    reasons: dict[int, str] | None = None,
    measures: bool = True,
    tasks: tuple[str, ...] = (),
    objectives: tuple[str, ...] = (),
    staged: bool = True,
    seeds: int = 4,
    best: int = 2,
    n_blocks: int = N_BLOCKS,
) -> Path:
    """Write a run; scores are made up: more tuned groups and `lora` in G4 score better, plus noise.

    Args:
        folder: Made with its parents.
        n_trials: Trials of the search beside the six baselines; of every 13 one fails, one does not fit, one is pruned.
        seed: Of the made-up scores and designs.
        finished: Whether there is a confirmation and a best.yaml.
        names: Names of trials of the search by their place from 0, in place of `trial 1`, ...
        reasons: Reasons of trials that fail, by their place.
        measures: Whether trials carry what the objectives are measured with; studies of old do not.
        tasks: Names of several tasks.
        objectives: Objectives of a multi-objective search; empty for the score alone.
        staged: Whether stages are recorded.
        seeds: Seeds of the confirmation.
        best: Found designs that are confirmed.
        n_blocks: Blocks of the backbone.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    (folder / "settings.yaml").write_text(to_yaml(_settings(folder, n_trials, seed, objectives)))
    storage = _quick_storage(folder / "study.db")
    directions = ["maximize" if o == "score" else "minimize" for o in objectives] or ["maximize"]
    search = _open(storage, "search", directions)
    confirm = _open(storage, "confirm", ["maximize"])
    trials = made_up_trials(
        n_trials, rng, names=names, reasons=reasons, measures=measures, tasks=tasks, objectives=objectives,
        n_blocks=n_blocks,
    )  # fmt: skip
    search.add_trials(trials)
    if staged:
        search.set_user_attr("stages", _stages(load_space("s4").bound_to(n_blocks, METHODS), rng))
    if finished:
        _finish(folder, search, confirm, rng, seeds, best, tasks, n_blocks)
    storage.remove_session()
    storage.engine.dispose()
    return folder


def made_up_trials(
    n_trials, rng, *, names=None, reasons=None, measures=True, tasks=(), objectives=(), n_blocks=N_BLOCKS
):
    """The trials of a search, baselines first; see `write_study`."""
    space = load_space("s4").bound_to(n_blocks, METHODS)
    extras = {"measures": measures, "tasks": tasks, "objectives": objectives}
    trials = [
        _trial(space, params, rng, {"kind": "baseline", "baseline": name, "name": name}, **extras)
        for name, params in _baselines(space)
    ]
    for i in range(n_trials):
        params = {d.name: rng.choice(d.choices) for d in space.dimensions}
        state = {4: "failed", 8: "infeasible", 11: "pruned"}.get(i % 13, "complete")
        state = "failed" if reasons and i in reasons else state
        facts = {"name": (names or {}).get(i, f"trial {i + 1}")}
        reason = (reasons or {}).get(i)
        trials.append(_trial(space, params, rng, facts, state=state, reason=reason, **extras))
    return trials


def _quick_storage(path):
    """SQLite that does not wait for the disk."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    storage.engine.dispose()
    sqlalchemy.event.listen(storage.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    return storage


def _open(storage, name, directions):
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(storage=storage, study_name=name, directions=directions, sampler=sampler)


def _settings(folder, n_trials, seed, objectives):
    options = RunOptions(budget="0.1%", search=SearchOptions(trials=n_trials, space="s4", strategy="s4"), seed=seed)
    kept = {k: v for k, v in to_plain(options).items() if k not in NOT_STORED}
    space = load_space("s4")
    return {
        "format": "peftsearch-study/1", "model": "minilm", "revision": "sha256:53aa51172d142c89",
        "anatomy": "2b98f869977fe298", "task": "sentiment", "task_source": "embedded sentiment, seed 0",
        "task_fingerprint": "987ee73741a7ae0c", "metric": "accuracy", "budget": "0.1%", "budget_params": BUDGET,
        "count_head": False, "space": "s4", "dimensions": {d.name: list(d.choices) for d in space.dimensions},
        "strategy": plain(asdict(load_strategy("s4"))), "training": plain(asdict(TrainingSettings())),
        "autocast": "none", "seed": seed, "storage": "study.db", "id": "ef13b3776871", "options": kept,
    } | ({"objectives": list(objectives)} if objectives else {})  # fmt: skip


def _baselines(space):
    yield "head", None
    uniform = {"grouping": "uniform", "allocation": "uniform", "tunable": "G1+G2+G3+G4"}
    for method in METHODS:
        yield method, uniform | {f"methods.G{i}": method for i in range(1, 5)}
    s4 = {"methods.G1": "adapter+lora", "methods.G2": "adapter+prefix", "methods.G3": "adapter+prefix+bitfit",
          "methods.G4": "prefix+bitfit+lora"}  # fmt: skip
    yield "s4-paper", uniform | {"grouping": "spindle"} | s4


def _true_score(params):
    if params is None:
        return 0.62
    groups = params["tunable"].split("+")
    return 0.70 + 0.02 * len(groups) + 0.08 * ("G4" in groups and "lora" in params["methods.G4"])


def _trial(space, params, rng, facts, *, state="complete", reason=None, measures, tasks, objectives):
    score = round(min(0.99, _true_score(params) + rng.gauss(0, 0.015)), 4)
    design = space.design(params) if params else Design(grouping="uniform", allocation=(1.0,), methods=((),))
    own = {**facts, "design": design.to_dict(), "steps": 120, "seed": 0}
    n_params = rng.randrange(18_000, BUDGET) if params else 0
    if state != "infeasible":
        own |= {"n_params": n_params, "share": n_params / BUDGET, "learning_rate": 0.01}
    values = None
    if state == "complete":
        own |= {
            "n_head": 770,
            "loss": 0.4,
            "value": score,
            "train_loss": 0.4,
            "train_s": round(rng.uniform(2, 4), 3),
            "wall_s": 5.0,
            "score": score,
        }
        if measures:
            own["measures"] = {"params": n_params, "train_flops": 3 * 10**9 + 1000 * n_params,
                               "step_s": 0.02 + n_params / 4e6, "peak_memory_bytes": 10**8 + 40 * n_params}  # fmt: skip
        if tasks:
            own["task_scores"] = {t: round(score + rng.gauss(0, 0.01), 4) for t in tasks}
        values = [score if o == "score" else own["measures"][o] for o in objectives] or [score]
    else:
        own["reason"] = reason or {
            "failed": "Diverged: the loss became nan at step 17",
            "infeasible": "the design needs at least 30,000 parameters, the budget is 22,713",
            "pruned": "stopped by the pruner at step 40 with score 0.5510",
        }[state]  # fmt: skip
        own |= {"infeasible": True} if state == "infeasible" else {}
    distributions = {d.name: CategoricalDistribution(d.choices) for d in space.dimensions}
    return create_trial(
        state={"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(state, TrialState.PRUNED),
        values=values,
        params=params or {},
        distributions=distributions if params else {},
        user_attrs=own,
        intermediate_values={40: score} if state == "pruned" else {},
    )


def _stages(space, rng):
    records, waived = [], {"methods.G2", "methods.G3"}
    for dimension in space.dimensions:
        if dimension.name in waived:
            why = "the group is not tuned"
            records.append(StageRecord(name=dimension.name, choices=(), chosen=dimension.choices[0], why=why))
            continue
        tried = dimension.choices[:6]
        choices = [
            ChoiceRecord(choice=c, scores=tuple(0.75 + rng.gauss(0, 0.02) for _ in range(3 if i else 2)))
            if c in tried
            else ChoiceRecord(choice=c, scores=(), drawn=False)
            for i, c in enumerate(dimension.choices)
        ]
        chosen = max((c for c in choices if c.scores), key=lambda c: c.mean).choice
        records.append(StageRecord(name=dimension.name, choices=tuple(choices), chosen=chosen))
    return [r.to_dict() for r in records]


def _finish(folder, search, confirm, rng, seeds, best, tasks, n_blocks):
    done = [t for t in search.trials if t.state == TrialState.COMPLETE]
    ranked = sorted(done, key=lambda t: -t.user_attrs["score"])
    found = [t for t in ranked if "kind" not in t.user_attrs][:best]
    rivals = [t for t in ranked if "kind" in t.user_attrs][:2]
    for s in range(1000, 1000 + seeds):
        for t in (*found, *rivals):
            score = round(min(0.99, t.user_attrs["score"] + 0.03 + rng.gauss(0, 0.008)), 4)
            facts = {k: v for k, v in t.user_attrs.items() if k not in {"kind", "baseline"}}
            facts |= {"seed": s, "steps": 300, "score": score, "right": "01" * 50}
            facts |= {"test_score": round(score - 0.005, 4), "test_right": "01" * 50}
            if tasks:
                facts["task_scores"] = {name: round(score + rng.gauss(0, 0.01), 4) for name in tasks}
            confirm.add_trial(create_trial(state=TrialState.COMPLETE, value=score, user_attrs=facts))
    pick = found[0]
    own = [t.value for t in confirm.trials if t.user_attrs["name"] == pick.user_attrs["name"]]
    (folder / "best.yaml").write_text(to_yaml(_best(folder, pick, own, n_blocks)))


def _best(folder, pick, scores, n_blocks):
    facts = pick.user_attrs
    design = Design.from_dict(facts["design"])
    architecture = _architecture(design, n_blocks)
    data = architecture.to_dict()
    for entry in data["blocks"]:
        for method, own in entry["methods"].items():
            own["label"] = "query+ffn_in" if method == "bitfit" else f"{method[0]}={own['size']}"
    return {
        "format": "peftsearch-best/1",
        "verdict": {
            "kind": "tie",
            "statement": f"No winner: these designs cannot be distinguished: {facts['name']} and s4-paper.",
            "settle": "A gap of 0.0100 to s4-paper would need about --seeds 12.",
            "p_value": None,
            "tied": [facts["name"], "s4-paper"],
        },
        "name": facts["name"],
        "model": {"name": "minilm", "model_type": "bert", "n_params": 22_713_216, "stacks": {"encoder": n_blocks}},
        "task": {"name": "sentiment", "metric": "accuracy", "majority_score": 0.5},
        "budget": {
            "text": "0.1%", "n_params": BUDGET, "used": architecture.n_params,
            "share_used": architecture.n_params / BUDGET, "count_head": False,
        },
        "design": plain(design.to_dict()),
        "architecture": data,
        "training": {"learning_rate": 0.01, "steps": 300},
        "scores": {
            "validation": {"mean": mean(scores), "std": stdev(scores) if len(scores) > 1 else None, "n": len(scores),
                           "values": scores},
            "test": None,
            "search": facts["score"],
        },
        "seed": 0,
        "hardware": "AMD EPYC, 2 cores",
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "made": "2026-11-24T05:43:29+00:00",
    }  # fmt: skip


def _architecture(design, n_blocks):
    """Sizes that stand for what `fit` gives: the picture needs some, not the right ones."""
    groups = group_of_blocks(design.grouping, n_blocks)
    placements = [
        Placement(stack="encoder", block=b, method=m, size=1 + b % 3, n_params=800 * (1 + b % 3) + 300 * i)
        for b in range(n_blocks)
        for i, m in enumerate(design.methods[groups[b]])
    ]
    return Architecture(placements=tuple(placements))


def read_best(folder: Path) -> dict:
    """What best.yaml holds."""
    return yaml.safe_load((folder / "best.yaml").read_text())
