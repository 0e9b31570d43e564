"""What drives a sampler without training: a made-up score, a study in memory, and what a kill leaves behind."""

import random
from functools import cache

import optuna
from optuna.trial import TrialState

from peftsearch.design.baselines import usable_methods
from peftsearch.design.budget import parse_budget
from peftsearch.design.space import load_space
from peftsearch.samplers import SamplerContext, make_sampler
from peftsearch.study.private_optuna import write_user_attribute
from peftsearch.study.trials import is_interrupted, replicate_of
from tests.anatomies import bert_like

SPACE = load_space("s4")


BACKBONE = bert_like()
BUDGET = parse_budget("0.2%", BACKBONE.n_params)
SCORES = {(b.stack, b.index, m): (b.index + 1) / 3.5 for b in BACKBONE.blocks for m in usable_methods(BACKBONE)}


def context(n_trials=40, seed=0, feasible=lambda design: True, space=SPACE, **facts):
    facts = {"backbone": BACKBONE, "budget": BUDGET, "sensitivity": lambda: SCORES} | facts
    return SamplerContext(space=space, n_trials=n_trials, seed=seed, feasible=feasible, **facts)


def value_of(params, seed=0):
    """A made-up score that depends on the choices and the seed."""
    return random.Random(f"{sorted(params.items())}{seed}").random()


N_TRIALS = {"gp": 7}
SETTINGS = {"gp": {"n_startup_trials": 4}, "race": {"portfolio": ["lora+prefix", "bitfit"]}}
"""A suggestion of the Gaussian process costs a fit: few trials, most of them after the start."""


def run(name, ctx, study=None, n_trials=None, score=value_of):
    """Drive a sampler to its end (or `n_trials` further trials); returns the study."""
    sampler = make_sampler(name, ctx, SETTINGS.get(name, {}))
    study = study or optuna.create_study(direction="maximize")
    study.sampler = sampler
    for _ in range(n_trials if n_trials is not None else ctx.n_trials):
        exhausted = getattr(sampler, "exhausted", None)
        if exhausted and exhausted(study.get_trials(deepcopy=False)):
            break
        trial = study.ask(ctx.distributions)
        stored = study.get_trials(deepcopy=False)[trial.number]
        result = score(trial.params, replicate_of(stored))
        study.tell(trial, result, state=TrialState.FAIL if result is None else None)
    return study


def interrupt(study, trial):
    """What opening a study does with a trial that a killed process left behind."""
    write_user_attribute(study, trial, "interrupted", True)
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def asked(study):
    return [t.params for t in study.trials if not is_interrupted(t)]


@cache
def whole(name, seed=0):
    return asked(run(name, context(n_of(name), seed)))


def n_of(name):
    return N_TRIALS.get(name, 40)
