"""Optuna's importance evaluators on made-up trials of the s4 space whose score depends on two dimensions.

Usage: python -W ignore experiments/2026-11-24-report/evaluators.py N_TRIALS [fanova]
"""

import random
import sys
import time
from itertools import combinations

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial


def subsets(items):
    return ["+".join(c) for k in range(1, len(items) + 1) for c in combinations(items, k)]


SPACE = {
    "grouping": ["increasing", "uniform", "decreasing", "spindle", "bottleneck"],
    "allocation": ["increasing", "uniform", "decreasing"],
    "tunable": subsets(["G1", "G2", "G3", "G4"]),
} | {f"methods.G{i}": subsets(["adapter", "prefix", "bitfit", "lora"]) for i in range(1, 5)}


def made_up_study(n_trials, seed=1):
    """More tuned groups are better, and so is LoRA in G4; noise of 0.02. Choices of untuned groups are left out."""
    rng, trials = random.Random(seed), []
    for _ in range(n_trials):
        params = {name: rng.choice(choices) for name, choices in SPACE.items()}
        score = rng.gauss(0, 0.02) + 0.02 * params["tunable"].count("G")
        score += 0.05 * ("G4" in params["tunable"] and "lora" in params["methods.G4"])
        kept = {k: v for k, v in params.items() if not k.startswith("methods") or k[-2:] in params["tunable"]}
        distributions = {name: CategoricalDistribution(SPACE[name]) for name in kept}
        trials.append(create_trial(params=kept, distributions=distributions, value=score))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.add_trials(trials)
    return study


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = made_up_study(int(sys.argv[1]))
    evaluators = {
        "PED-ANOVA, best tenth": PedAnovaImportanceEvaluator(),
        "PED-ANOVA, best quarter": PedAnovaImportanceEvaluator(target_quantile=0.25),
    }
    if "fanova" in sys.argv:
        evaluators["fANOVA"] = FanovaImportanceEvaluator(seed=0)
    for name, evaluator in evaluators.items():
        start = time.perf_counter()
        found = get_param_importances(study, evaluator=evaluator, normalize=False)
        values = ", ".join(f"{k} {float(v):.3f}" for k, v in found.items())
        print(f"{name}: {time.perf_counter() - start:.2f} s; {values}")


if __name__ == "__main__":
    main()
