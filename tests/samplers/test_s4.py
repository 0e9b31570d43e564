"""The S4 procedure against a plain re-telling of it, with one worker and with three."""

import random
from statistics import mean, stdev

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.design.space import load_space
from peftsearch.errors import ConfigError
from peftsearch.samplers import make_sampler, plan_of
from peftsearch.samplers.s4 import apportion
from peftsearch.study.trials import replicate_of, stage_of
from tests.samplers.driving import SPACE, asked, context, interrupt, run, value_of


class TestS4:
    def test_decides_each_stage_by_the_best_mean_of_shared_completions(self):
        """An oracle that walks the stored trials with nothing but their parameters and values."""
        ctx = context(n_trials=400)
        study = run("s4", ctx)
        records = make_sampler("s4", ctx, {}).decisions(study.trials)
        assert [r.name for r in records] == [d.name for d in SPACE.dimensions]
        decided = {}
        for record in records:
            own = [t for t in study.trials if stage_of(t) == record.name]
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
                rest.setdefault(replicate_of(t), set()).add(others)
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
        stages = {stage_of(t) for t in study.trials}
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
        ctx, rng = context(n_trials=40), random.Random(order)
        sampler = make_sampler("s4", ctx, {})
        study = optuna.create_study(direction="maximize", sampler=sampler)
        running, decided, n_waits, n_further = [], {}, 0, 0
        while not sampler.exhausted(trials := study.get_trials(deepcopy=False)):
            closed = {r.name: r.chosen for r in sampler.decisions(trials) if r.chosen is not None}
            assert decided.items() <= closed.items(), "a decision never changes"
            assert not any(stage_of(study.trials[t.number]) in closed for t in running)
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
        assert len(set(slots)) == len(slots) <= 40
        for stage in {s for s, _, _ in slots}:
            own = [(choice, repeat) for s, choice, repeat in slots if s == stage]
            repeats = [sum(c == choice for c, _ in own) for choice in {c for c, _ in own}]
            assert max(repeats) - min(repeats) <= 1, "further trials go to the choices with the fewest"
            n_further += sum(r - min(repeats) for r in repeats) if max(repeats) > 1 else 0
            shared = {}
            for t in study.trials:
                if stage_of(t) == stage:
                    rest = tuple(sorted((k, v) for k, v in t.params.items() if k != stage))
                    shared.setdefault(replicate_of(t), set()).add(rest)
            assert all(len(completions) == 1 for completions in shared.values())
        assert n_waits
        assert n_further
        best = sampler.decided_trial(study.trials)
        assert best is None or all(best.params[k] == v for k, v in decided.items() if "G" not in k)

    def test_one_worker_alone_gets_the_planned_trials(self):
        ctx = context(n_trials=60)
        study, plan = run("s4", ctx), plan_of(make_sampler("s4", ctx, {}), ctx)
        n_first = sum(stage_of(t) == "grouping" for t in study.trials)
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

    def test_what_was_there_to_propose_is_proposed_although_trials_end_in_between(self):
        """A worker looks and asks under the study's lock; others end their trials without it."""
        ctx = context(n_trials=60)
        sampler = make_sampler("s4", ctx, {})
        study = optuna.create_study(direction="maximize", sampler=sampler)
        trials = [study.ask(ctx.distributions) for _ in range(plan_of(sampler, ctx)[0].n_trials)]
        for trial in trials[2:]:
            study.tell(trial, 0.0)
        study.ask(ctx.distributions)
        assert not sampler.waiting(study.trials), "three run: a further one is asked for"
        for trial in trials[:2]:
            study.tell(trial, 0.0)
        further = study.ask(ctx.distributions)
        assert stage_of(study.trials[further.number]) == "grouping"
        assert sampler.waiting(study.trials)

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
