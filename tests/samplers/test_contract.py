"""The contract of every sampler, and what each promises beyond it."""

import random
from statistics import mean

import optuna
import pytest
from optuna.study import StudyDirection

from peftsearch.design.baselines import S4_PAPER
from peftsearch.design.fitting import fit
from peftsearch.design.space import load_space
from peftsearch.errors import ConfigError
from peftsearch.samplers import SAMPLERS, make_sampler, require_objectives, supports_objectives
from peftsearch.samplers.evolution import ranked
from peftsearch.samplers.knapsack import worth
from peftsearch.study.notes import SENSITIVITY
from peftsearch.study.trials import Kind
from tests.samplers.driving import (
    BACKBONE,
    BUDGET,
    SCORES,
    SETTINGS,
    SPACE,
    asked,
    context,
    interrupt,
    n_of,
    run,
    value_of,
    whole,
)


@pytest.fixture(autouse=True)
def few_designs_on_the_way(monkeypatch):
    """Fitting takes a millisecond; the tests need no good designs."""
    monkeypatch.setattr("peftsearch.samplers.sensitivity._LOOKED_AT", 80)


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
        study.add_trial(optuna.create_trial(value=0.1, user_attrs={"kind": Kind.BASELINE}))
        study.enqueue_trial(SPACE.params(S4_PAPER), user_attrs={"kind": Kind.BASELINE})
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
            trial.set_constraint("one", value_of(trial.params, 2) - 0.5)
            trial.set_constraint("two", -1.0)
            study.tell(trial, [value_of(trial.params), value_of(trial.params, 1)])
        assert len({SPACE.design(t.params) for t in study.trials}) == n_of(name)
        assert all(set(t.constraints) == {"one", "two"} for t in study.trials)

    def test_unknown_settings_are_refused(self, name):
        with pytest.raises(ConfigError, match="its settings do not suit it"):
            make_sampler(name, context(), {"no_such_setting": 1})


@pytest.mark.parametrize("name", ["evolution", "nsga2", "tpe"])
def test_learns(name):
    """Better than random search where the score is a sum over dimensions, over two seeds."""

    def score(params, seed):
        return sum(params[d.name] == d.choices[len(d.choices) // 2] for d in SPACE.dimensions)

    def last(name):
        return mean(mean(t.value for t in run(name, context(50, s), score=score).trials[-20:]) for s in range(2))

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
        for i in (10, 39):
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
            optuna.create_trial(
                values=[rng.random(), rng.random()], system_attrs={"constraints:one": float(i % 5 == 4)}
            )
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
    study.enqueue_trial(SPACE.params(S4_PAPER), user_attrs={"kind": Kind.BASELINE})
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


class TestSensitivity:
    def test_measures_once_and_decides_from_what_is_stored(self):
        calls = []
        ctx = context(sensitivity=lambda: calls.append(1) or SCORES)
        study = run("sensitivity", ctx, n_trials=2)
        run("sensitivity", ctx, study, n_trials=2)
        assert len(calls) == 1
        assert {tuple(s[:3]): s[3] for s in study.user_attrs[SENSITIVITY]["scores"]} == SCORES
        assert asked(study)[:4] == study.user_attrs[SENSITIVITY]["designs"][:4] == whole("sensitivity")[:4]

    def test_its_designs_are_different_architectures_and_worth_more_than_random_ones(self):
        def worths(trials):
            architectures = [fit(SPACE.design(t), BACKBONE, BUDGET) for t in trials]
            assert len(set(architectures)) == len(architectures)
            return [worth(a, SCORES) for a in architectures]

        warm, drawn = worths(whole("sensitivity")[:6]), worths(whole("random")[:20])
        assert min(warm[1:]) > mean(drawn)
        assert warm[1:] == sorted(warm[1:], reverse=True)

    def test_goes_on_as_the_sampler_it_names(self):
        for then in ("tpe", "evolution"):
            study = optuna.create_study(direction="maximize")
            study.sampler = make_sampler("sensitivity", context(), {"n_warm": 2, "then": then})
            for _ in range(3):
                study.tell(study.ask(context().distributions), 0.0)
            assert study.trials[2].params not in study.user_attrs[SENSITIVITY]["designs"]
            study.sampler = make_sampler(then, context(), {})
            stored = study.trials[:2]
            alone = optuna.create_study(direction="maximize", sampler=study.sampler)
            alone.add_trials(stored)
            assert alone.ask(context().distributions).params == study.trials[2].params

    def test_needs_scores(self):
        with pytest.raises(ConfigError, match="needs a loaded backbone and training data"):
            make_sampler("sensitivity", context(sensitivity=None), {})
        with pytest.raises(ConfigError, match="then must be one of evolution, tpe, random, got 'gp'"):
            make_sampler("sensitivity", context(), {"then": "gp"})
