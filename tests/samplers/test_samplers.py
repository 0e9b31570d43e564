"""The contract of every sampler, and the S4 procedure against a plain re-telling of it."""

import random
from functools import cache
from statistics import mean, stdev

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import TrialState

from peftsearch.baselines import S4_PAPER
from peftsearch.errors import ConfigError
from peftsearch.samplers import (
    SAMPLERS,
    SamplerContext,
    make_sampler,
    plan_of,
    require_objectives,
    supports_objectives,
)
from peftsearch.samplers.context import CONSTRAINTS, INTERRUPTED, KIND, REPLICATE, STAGE
from peftsearch.samplers.evolution import ranked
from peftsearch.samplers.s4 import apportion
from peftsearch.space import load_space

SPACE = load_space("s4")


def context(n_trials=40, seed=0, feasible=lambda design: True, space=SPACE):
    return SamplerContext(space=space, n_trials=n_trials, seed=seed, feasible=feasible)


def value_of(params, seed=0):
    """A made-up score that depends on the choices and the seed."""
    return random.Random(f"{sorted(params.items())}{seed}").random()


N_TRIALS = {"gp": 7}
SETTINGS = {"gp": {"n_startup_trials": 4}}
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
        result = score(trial.params, stored.system_attrs.get(REPLICATE, 0))
        study.tell(trial, result, state=TrialState.FAIL if result is None else None)
    return study


def interrupt(study, trial):
    """What opening a study does with a trial that a killed process left behind."""
    study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def asked(study):
    return [t.params for t in study.trials if not t.user_attrs.get(INTERRUPTED)]


@cache
def whole(name, seed=0):
    return asked(run(name, context(n_of(name), seed)))


def n_of(name):
    return N_TRIALS.get(name, 40)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
class TestContract:
    def test_proposes_members_of_the_space(self, name):
        assert len(whole(name)) == n_of(name)
        for params in whole(name):
            assert {d.name for d in SPACE.dimensions} == set(params)
            assert all(params[d.name] in d.choices for d in SPACE.dimensions)

    def test_the_seed_decides(self, name):
        assert asked(run(name, context(n_of(name)))) == whole(name)
        assert asked(run(name, context(n_of(name), 2), n_trials=3)) != whole(name)[:3]

    @pytest.mark.parametrize("part", [0.1, 0.4, 0.7])
    def test_a_killed_search_goes_on_as_an_uninterrupted_one(self, name, part):
        ctx, stop = context(n_of(name)), round(part * n_of(name))
        study = run(name, ctx, n_trials=stop)
        interrupt(study, study.ask(ctx.distributions))
        assert asked(run(name, ctx, study, n_trials=n_of(name) - stop)) == whole(name)

    def test_failed_trials_do_not_stop_it(self, name):
        def score(params, seed):
            return None if params["grouping"] == "uniform" else value_of(params)

        assert len(run(name, context(n_of(name)), score=score).trials) == n_of(name)

    def test_baselines_are_not_asked_for_and_count_for_no_trial(self, name):
        """One outside the space, one whose point is given; neither moves the first proposal."""
        study, ctx = optuna.create_study(direction="maximize"), context(n_of(name))
        study.add_trial(optuna.create_trial(value=0.1, user_attrs={KIND: "baseline"}))
        study.enqueue_trial(SPACE.params(S4_PAPER), user_attrs={KIND: "baseline"})
        study.sampler = make_sampler(name, ctx, SETTINGS.get(name, {}))
        baseline = study.ask(ctx.distributions)
        assert baseline.params == SPACE.params(S4_PAPER)
        study.tell(baseline, 0.2)
        run(name, ctx, study)
        assert len(study.trials) == n_of(name) + 2
        assert study.trials[2].params == whole(name)[0]

    def test_only_what_fits_is_proposed(self, name):
        def feasible(design):
            return "prefix" not in design.methods[0] and design.grouping != "spindle"

        assert all(feasible(SPACE.design(p)) for p in asked(run(name, context(n_of(name), feasible=feasible))))

    def test_trials_may_run_beside_each_other(self, name):
        """Three at a time, ended in another order than begun; all are different."""
        ctx = context(9)
        if name == "s4":
            return  # its stages have a test of their own
        study = optuna.create_study(direction="maximize", sampler=make_sampler(name, ctx, SETTINGS.get(name, {})))
        for _ in range(3):
            trials = [study.ask(ctx.distributions) for _ in range(3)]
            for trial in random.Random(0).sample(trials, 3):
                study.tell(trial, value_of(trial.params))
        assert len({SPACE.design(t.params) for t in study.trials}) == 9

    def test_several_objectives(self, name):
        if not supports_objectives(name):
            with pytest.raises(ConfigError, match=r"searches for one objective .* \(.*nsga2"):
                require_objectives("mine", name, 2)
            return
        require_objectives("mine", name, 2)
        ctx = context(n_of(name))
        study = optuna.create_study(directions=["maximize", "minimize"])
        study.sampler = make_sampler(name, ctx, SETTINGS.get(name, {}))
        for _ in range(n_of(name)):
            trial = study.ask(ctx.distributions)
            trial.set_user_attr(CONSTRAINTS, [value_of(trial.params, 2) - 0.5, -1.0])
            study.tell(trial, [value_of(trial.params), value_of(trial.params, 1)])
        assert len({SPACE.design(t.params) for t in study.trials}) == n_of(name)
        assert all(list(t.constraints.values()) == t.user_attrs[CONSTRAINTS] for t in study.trials)

    def test_unknown_settings_are_refused(self, name):
        with pytest.raises(ConfigError, match="its settings do not suit it"):
            make_sampler(name, context(), {"no_such_setting": 1})


@pytest.mark.parametrize("name", ["evolution", "nsga2", "tpe"])
def test_learns(name):
    """Better than random search where the score is a sum over dimensions, over three seeds."""

    def score(params, seed):
        return sum(params[d.name] == d.choices[len(d.choices) // 2] for d in SPACE.dimensions)

    def last(name):
        return mean(mean(t.value for t in run(name, context(60, s), score=score).trials[-20:]) for s in range(3))

    assert last(name) > last("random") + 0.5


@pytest.mark.parametrize("name", ["random", "tpe", "evolution", "nsga2", "gp"])
def test_a_small_space_is_tried_whole_before_anything_is_tried_twice(name):
    space = load_space("uniform")
    ctx = context(space.n_designs, space=space)
    study = run(name, ctx, score=lambda params, seed: float(len(params["methods.G1"])))
    assert len({space.design(t.params) for t in study.trials}) == space.n_designs
    assert len(run(name, ctx, study, n_trials=1).trials) == space.n_designs + 1


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gp", {"n_startup_trials": 0}, "n_startup_trials must be a whole number of at least 1, got 0"),
        ("nsga2", {"population_size": 1}, "at least 2, got 1"),
        ("evolution", {"max_changes": 1.5}, "max_changes must be a whole number of at least 1, got 1.5"),
        ("evolution", {"population_size": True}, "at least 2, got True"),
    ],
)
def test_settings_out_of_range(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_sampler(name, context(), settings)


class TestEvolution:
    def test_children_are_near_a_member_of_the_population(self):
        study = run("evolution", context())
        for i in (10, 25, 39):
            trial = study.trials[i]
            population = sorted(study.trials[i - 10 : i], key=lambda t: t.value)[3:]
            near = {SPACE.design(t.params).key: t.params for t in population}
            for params in list(near.values()):
                near |= {SPACE.design(p).key: p for p in SPACE.neighbours(params)}
            beyond = {SPACE.design(p).key for params in near.values() for p in SPACE.neighbours(params)}
            assert SPACE.design(trial.params).key in beyond, "parents are never among the worst three of a tournament"

    def test_ranks_against_a_plain_count(self):
        """The best rank is held by those that no other dominates; who violates a constraint comes after all others."""
        rng = random.Random(0)
        trials = [
            optuna.create_trial(values=[rng.random(), rng.random()], system_attrs={CONSTRAINTS: [float(i % 5 == 4)]})
            for i in range(30)
        ]
        ranks = ranked(trials, [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE])
        kept = [i for i in range(30) if i % 5 != 4]
        for i in kept:
            score, cost = trials[i].values
            dominated = any(trials[j].values[0] > score and trials[j].values[1] < cost for j in kept)
            assert (ranks[i] > 0) == dominated
        assert max(ranks[i] for i in kept) < min(ranks[i] for i in range(30) if i not in kept)


def test_nsga2_keeps_interrupted_trials_and_baselines_out_of_its_generations():
    ctx = context(20)
    study = optuna.create_study(direction="maximize", sampler=make_sampler("nsga2", ctx, {"population_size": 4}))
    study.enqueue_trial(SPACE.params(S4_PAPER), user_attrs={KIND: "baseline"})
    study.tell(study.ask(ctx.distributions), 1.0)
    for i in range(12):
        trial = study.ask(ctx.distributions)
        if i == 5:
            interrupt(study, trial)
        else:
            study.tell(trial, value_of(trial.params))
    generations = [t.system_attrs.get("NSGA2Sampler:generation") for t in study.trials]
    assert generations[0] is None
    assert generations[1:] == [0] * 4 + [1] * 5 + [2] * 3


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

    @pytest.mark.parametrize("order", range(2))
    def test_stages_close_on_ended_trials_when_three_run_at_a_time(self, order):
        """Trials end in random order; some worker would often wait at the end of a stage."""
        ctx, rng = context(n_trials=60), random.Random(order)
        sampler = make_sampler("s4", ctx, {})
        study = optuna.create_study(direction="maximize", sampler=sampler)
        running, decided, n_waits, n_further = [], {}, 0, 0
        while not sampler.exhausted(trials := study.get_trials(deepcopy=False)):
            closed = {r.name: r.chosen for r in sampler.decisions(trials) if r.chosen is not None}
            assert decided.items() <= closed.items(), "a decision never changes"
            assert not any(study.trials[t.number].system_attrs[STAGE] in closed for t in running)
            decided = closed
            waiting = sampler.waiting(trials)
            if len(running) < 3 and not waiting:
                running.append(study.ask(ctx.distributions))
                assert all(running[-1].params[name] == choice for name, choice in decided.items())
                continue
            n_waits += waiting and len(running) < 3
            assert running, "who waits, waits for somebody"
            trial = running.pop(rng.randrange(len(running)))
            study.tell(trial, value_of(trial.params, rng.random()))
        assert not running
        assert not sampler.waiting(study.trials)
        slots = [tuple(t.system_attrs["peftsearch:s4"].values()) for t in study.trials]
        assert len(set(slots)) == len(slots) <= 60
        for stage in {s for s, _, _ in slots}:
            own = [(choice, repeat) for s, choice, repeat in slots if s == stage]
            repeats = [sum(c == choice for c, _ in own) for choice in {c for c, _ in own}]
            assert max(repeats) - min(repeats) <= 1, "further trials go to the choices with the fewest"
            n_further += sum(r - min(repeats) for r in repeats) if max(repeats) > 1 else 0
            shared = {}
            for t in study.trials:
                if t.system_attrs[STAGE] == stage:
                    rest = tuple(sorted((k, v) for k, v in t.params.items() if k != stage))
                    shared.setdefault(t.system_attrs[REPLICATE], set()).add(rest)
            assert all(len(completions) == 1 for completions in shared.values())
        assert n_waits
        assert n_further
        best = sampler.decided_trial(study.trials)
        assert best is None or all(best.params[k] == v for k, v in decided.items() if "G" not in k)

    def test_one_worker_alone_gets_the_planned_trials(self):
        ctx = context(n_trials=60)
        study, plan = run("s4", ctx), plan_of(make_sampler("s4", ctx, {}), ctx)
        n_first = sum(t.system_attrs[STAGE] == "grouping" for t in study.trials)
        assert n_first == plan[0].n_trials

    def test_further_trials_are_bounded_and_come_anew_when_interrupted(self):
        ctx = context(n_trials=60)
        sampler = make_sampler("s4", ctx, {})
        study = optuna.create_study(direction="maximize", sampler=sampler)
        n_planned = plan_of(sampler, ctx)[0].n_trials
        trials = [study.ask(ctx.distributions) for _ in range(n_planned)]
        for trial in trials[1:]:
            study.tell(trial, 0.0)
        further = study.ask(ctx.distributions)
        slot = study.trials[further.number].system_attrs["peftsearch:s4"]
        assert slot == {"stage": "grouping", "choice": "increasing", "repeat": n_planned // 5}
        interrupt(study, study.trials[further.number])
        again = study.ask(ctx.distributions)
        assert study.trials[again.number].system_attrs["peftsearch:s4"] == slot
        assert again.params == further.params
        study.tell(again, 0.0)
        assert sampler.waiting(study.trials), "one trial runs: one further trial"
        assert not sampler.exhausted(study.trials)
        study.tell(trials[0], 0.0)
        assert not sampler.waiting(study.trials)
        record = sampler.decisions(study.trials)[0]
        assert {c.choice: len(c.scores) for c in record.choices}["increasing"] == n_planned // 5 + 1

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
