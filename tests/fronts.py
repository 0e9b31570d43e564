"""Studies made by hand in SQLite, as a search leaves them, for what reads and does not train."""

from pathlib import Path

import optuna
import yaml
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

SETTINGS = {
    "format": "peftsearch-study/1",
    "model": "tiny/bert",
    "revision": "",
    "anatomy": "0123456789abcdef",
    "task": "sentiment",
    "task_source": "embedded",
    "task_fingerprint": "f" * 16,
    "metric": "accuracy",
    "count_head": False,
    "space": "s4",
    "strategy": {"name": "s4", "search": {"steps": 50}, "confirm": {"steps": 100, "seeds": 2}},
    "training": {"batch_size": 32, "max_length": 128},
    "seed": 0,
    "storage": "study.db",
    "id": "abc",
    "options": {},
}
N_VALIDATION = 40


def design(*methods):
    return {"grouping": "uniform", "allocation": [1.0], "methods": [list(methods)]}


def save_study(folder: Path, budget, n_budget, search=(), confirm=(), objectives=(), storage="", **settings) -> Path:
    """A study of trials given as dicts: `name`, `n_params`, `score`, and what else their attributes hold."""
    folder.mkdir(parents=True)
    several = {"objectives": list(objectives)} if objectives else {}
    where = {"storage": storage or "study.db"}
    held = SETTINGS | {"budget": budget, "budget_params": n_budget} | where | several | settings
    (folder / "settings.yaml").write_text(yaml.safe_dump(held, sort_keys=False))
    prefix = f"{folder.name}-{held['id']}/" if storage else ""
    storage = storage or f"sqlite:///{folder / 'study.db'}"
    directions = ["maximize" if o == "score" else "minimize" for o in objectives] or ["maximize"]
    made = optuna.create_study(study_name=f"{prefix}search", storage=storage, directions=directions)
    made.add_trials([_trial(facts, objectives) for facts in search])
    made = optuna.create_study(study_name=f"{prefix}confirm", storage=storage, direction="maximize")
    made.add_trials([_trial(facts, ()) for facts in confirm])
    return folder


def confirmations(name, n_params, scores, **more):
    """The trainings of one confirmed design; right predictions as many as the score says, the same for every design."""
    return [
        {
            "name": name,
            "n_params": n_params,
            "score": score,
            "seed": 1000 + i,
            "steps": 100,
            "right": "1" * round(score * N_VALIDATION) + "0" * (N_VALIDATION - round(score * N_VALIDATION)),
            **more,
        }
        for i, score in enumerate(scores)
    ]


def _trial(facts, objectives):
    facts = {"steps": 50, "design": design("lora"), **facts}
    if facts["name"] in {"head", "lora", "adapter", "bitfit", "prefix"} and "seed" not in facts:
        facts |= {"kind": "baseline", "baseline": facts["name"]}
    values = [facts["score"] if o == "score" else facts["measures"][o] for o in objectives] or [facts["score"]]
    state = facts.pop("state", TrialState.COMPLETE)
    return create_trial(
        state=state,
        values=values if state == TrialState.COMPLETE else None,
        params={"x": "a"},
        distributions={"x": CategoricalDistribution(["a"])},
        user_attrs=facts,
    )
