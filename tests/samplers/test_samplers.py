"""The contract of every sampler, and the S4 procedure against a plain re-telling of it."""

import random
from statistics import mean, stdev

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from peftsearch.errors import ConfigError
from peftsearch.samplers import SAMPLERS, SamplerContext, make_sampler, plan_of
from peftsearch.samplers.context import INTERRUPTED, KIND, REPLICATE, STAGE
from peftsearch.samplers.s4 import apportion
from peftsearch.space import load_space

SPACE = load_space("s4")


def context(n_trials=40, seed=0, feasible=lambda design: True, space=SPACE):
    return SamplerContext(space=space, n_trials=n_trials, seed=seed, feasible=feasible)


def value_of(params, seed=0):
    """A made-up score that depends on the choices and the seed."""
    return random.Random(f"{sorted(params.items())}{seed}").random()


def run(name, ctx, study=None, n_trials=None, score=value_of):
    """Drive a sampler to its end (or `n_trials` further trials); returns the study."""
    sampler = make_sampler(name, ctx, {})
    study = study or optuna.create_study(direction="maximize")
    study.sampler = sampler
    for _ in range(n_trials if n_trials is not None else ctx.n_trials):
        exhausted = getattr(sampler, "exhausted", None)
        if exhausted and exhausted(study.get_trials(deepcopy=False)):
            break
        trial = study.ask(ctx.distributions)
        stored = study.get_trials(deepcopy=False)[trial.number]
        result = score(trial.params, stored.system_attrs.get(REPLICATE, 0))
        study.tell(trial, result, state=TrialState.FAIL if result is None else None)
    return study


def asked(study):
    return [t.params for t in study.trials if not t.user_attrs.get(INTERRUPTED)]


@pytest.mark.parametrize("name", sorted(SAMPLERS))
class TestContract:
    def test_proposes_members_of_the_space(self, name):
        study = run(name, context())
        assert len(study.trials) == 40
        for params in asked(study):
            assert {d.name for d in SPACE.dimensions} == set(params)
            SPACE.design(params)

    def test_the_seed_decides(self, name):
        assert asked(run(name, context(seed=1))) == asked(run(name, context(seed=1)))
        assert asked(run(name, context(seed=1))) != asked(run(name, context(seed=2)))

    @pytest.mark.parametrize("stop", [1, 13, 27])
    def test_a_killed_search_goes_on_as_an_uninterrupted_one(self, name, stop):
        whole = asked(run(name, context()))
        study = run(name, context(), n_trials=stop)
        study.ask(context().distributions)  # what kill -9 leaves behind
        stale = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))[0]
        study._storage.set_trial_user_attr(stale._trial_id, INTERRUPTED, True)
        study.tell(stale.number, state=TrialState.FAIL)
        assert asked(run(name, context(), study, n_trials=40 - stop)) == whole

    def test_failed_trials_do_not_stop_it(self, name):
        def score(params, seed):
            return None if params["grouping"] == "uniform" else value_of(params)

        study = run(name, context(), score=score)
        assert len(study.trials) == 40

    def test_baselines_do_not_shift_it_from_the_seed(self, name):
        study = optuna.create_study(direction="maximize")
        for value in (0.1, 0.2):
            study.add_trial(optuna.create_trial(value=value, user_attrs={KIND: "baseline"}))
        assert len(asked(run(name, context(), study))) == 42

    def test_unknown_settings_are_refused(self, name):
        with pytest.raises(ConfigError, match="its settings do not suit it"):
            make_sampler(name, context(), {"no_such_setting": 1})


def test_unknown_sampler():
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        make_sampler("randon", context(), {})


class TestS4:
    def test_decides_each_stage_by_the_best_mean_of_shared_completions(self):
        """An oracle that walks the stored trials with nothing but their parameters and values."""
        ctx = context(n_trials=400)
        study = run("s4", ctx)
        records = make_sampler("s4", ctx, {}).decisions(study.trials)
        assert [r.name for r in records] == [d.name for d in SPACE.dimensions]
        decided = {}
        for record in records:
            own = [t for t in study.trials if t.system_attrs.get(STAGE) == record.name]
            if not own:
                assert record.why == "the group is not tuned"
                decided[record.name] = record.chosen
                continue
            assert all(t.params[name] == choice for t in own for name, choice in decided.items())
            scores = {}
            for t in own:
                scores.setdefault(t.params[record.name], []).append(t.value)
            assert len({len(s) for s in scores.values()}) == 1, "every choice has as many trials"
            assert record.chosen == max(scores, key=lambda c: mean(scores[c]))
            for choice in record.choices:
                if choice.drawn:
                    assert choice.mean == pytest.approx(mean(scores[choice.choice]))
                    assert choice.standard_error == pytest.approx(
                        stdev(scores[choice.choice]) / len(scores[choice.choice]) ** 0.5
                    )
            rest = {}
            for t in own:  # equal repeats share the completion and the training seed
                others = tuple((k, v) for k, v in sorted(t.params.items()) if k != record.name)
                rest.setdefault(t.system_attrs[REPLICATE], set()).add(others)
            assert all(len(completions) == 1 for completions in rest.values())
            decided[record.name] = record.chosen

    def test_finds_a_planted_design(self):
        planted = {
            "grouping": "spindle", "allocation": "uniform", "tunable": "G1+G2+G3+G4", "methods.G1": "adapter+lora",
            "methods.G2": "adapter+prefix", "methods.G3": "adapter+prefix+bitfit", "methods.G4": "prefix+bitfit+lora",
        }  # fmt: skip

        def score(params, seed):
            return sum(params[k] == v for k, v in planted.items()) + 0.01 * value_of(params, seed)

        ctx = context(n_trials=415)
        study = run("s4", ctx, score=score)
        records = make_sampler("s4", ctx, {}).decisions(study.trials)
        assert {r.name: r.chosen for r in records} == planted
        assert make_sampler("s4", ctx, {}).decided_trial(study.trials).params == planted

    def test_only_feasible_designs_are_proposed_and_what_cannot_fit_is_recorded(self):
        def feasible(design):
            return "adapter" not in design.methods[0] and design.grouping != "bottleneck"

        ctx = context(n_trials=200, feasible=feasible)
        study = run("s4", ctx)
        assert all(feasible(SPACE.design(p)) for p in asked(study))
        grouping = make_sampler("s4", ctx, {}).decisions(study.trials)[0]
        assert {c.choice: c.fits for c in grouping.choices}["bottleneck"] is False

    def test_failed_trials_count_against_a_choice(self):
        def score(params, seed):
            return None if params["grouping"] == "spindle" and seed == 0 else float(params["grouping"] == "spindle")

        ctx = context(n_trials=200)
        grouping = make_sampler("s4", ctx, {}).decisions(run("s4", ctx, score=score).trials)[0]
        assert grouping.chosen != "spindle"
        assert {c.choice: c.n_failed for c in grouping.choices}["spindle"] == 1

    def test_trials_of_untuned_groups_go_to_the_other_stages(self):
        def score(params, seed):
            return float(params["tunable"] == "G2")

        ctx = context(n_trials=120)
        study = run("s4", ctx, score=score)
        stages = {t.system_attrs[STAGE] for t in study.trials}
        assert "methods.G2" in stages
        assert not stages & {"methods.G1", "methods.G3", "methods.G4"}
        assert len(study.trials) > 100

    @pytest.mark.parametrize("n_trials", [14, 40, 83, 400])
    def test_the_plan_never_exceeds_the_trials(self, n_trials):
        ctx = context(n_trials=n_trials)
        plan = plan_of(make_sampler("s4", ctx, {}), ctx)
        assert [s.name for s in plan] == [d.name for d in SPACE.dimensions]
        assert n_trials - 15 < sum(s.n_trials for s in plan) <= n_trials

    def test_too_few_trials_are_refused(self):
        with pytest.raises(ConfigError, match="at least 14 trials for the 7 stages"):
            make_sampler("s4", context(n_trials=13), {})

    def test_the_learning_rate_is_decided_last(self):
        ctx = context(n_trials=300, space=load_space("s4-lr"))
        study = run("s4", ctx, score=lambda params, seed: params["learning_rate"] + 1e-6 * value_of(params))
        last = make_sampler("s4", ctx, {}).decisions(study.trials)[-1]
        assert (last.name, last.chosen) == ("learning_rate", 0.03)


@given(st.integers(1, 1000), st.lists(st.integers(2, 40), min_size=1, max_size=9))
def test_apportion(n_trials, n_choices):
    shares = apportion(n_trials, n_choices)
    assert sum(shares) == n_trials
    if n_trials >= 2 * len(n_choices):
        assert min(shares) >= 2
    for a, b in zip(range(len(shares)), range(1, len(shares)), strict=False):
        if n_choices[a] > n_choices[b]:
            assert shares[a] >= shares[b] - 1
