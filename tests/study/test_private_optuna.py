"""The private parts of Optuna that the package uses: what broke, and who uses it."""

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from peftsearch.study import private_optuna as private
from peftsearch.study.storage import open_storage, own_url


def broken(part, users):
    return f"optuna {optuna.__version__}: {part} changed; adapt private_optuna.py, used by {users}"


@pytest.fixture
def study(tmp_path):
    storage = open_storage(own_url(tmp_path))
    yield optuna.create_study(storage=storage)
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_trials_of_another_process_are_read_written_and_failed(study):
    trial = study.ask()
    other = study.trials[0]
    private.write_user_attribute(study, other, "reason", "gone")
    private.write_system_attribute(study, other, "peftsearch:stage", "grouping")
    stored = private.stored_trial(study, trial)
    assert stored.user_attrs == {"reason": "gone"}, broken("set_trial_user_attr", "study/claims.py")
    assert stored.system_attrs["peftsearch:stage"] == "grouping", broken("set_trial_system_attr", "study/trials.py")
    private.fail_trial(study, other)
    assert study.trials[0].state == TrialState.FAIL, broken("set_trial_state_values", "study/claims.py")
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        private.fail_trial(study, other)


def test_a_trial_is_created_running_with_all_it_has(study):
    template = optuna.create_trial(state=TrialState.RUNNING, user_attrs={"kind": "baseline"})
    trial = private.create_trial(study, template)
    (stored,) = study.trials
    found = (stored.number, stored.state, stored.user_attrs)
    assert found == (trial.number, TrialState.RUNNING, {"kind": "baseline"}), broken(
        "create_new_trial", "searcher/schedule.py"
    )


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_without_a_heartbeat_is_silent(study):
    loud, silent = study.ask(), study.ask()
    for trial in (loud, silent):
        private.record_heartbeat(study, trial)
    with study._storage._backend.engine.begin() as connection:  # Optuna wraps the storage in a cache
        connection.execute(
            sqlalchemy.text(f"UPDATE trial_heartbeats SET heartbeat = '2000-01-01' WHERE trial_id = {silent._trial_id}")
        )
    assert private.silent_trials(study) == {silent.number}, broken("_get_stale_trial_ids", "study/claims.py")
    with private.heartbeat(study, silent):
        pass
    assert private.silent_trials(study) == set(), broken("get_heartbeat_thread", "searcher/runner.py")


def test_points_are_ranked_by_fronts_and_penalties():
    losses = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    ranks = private.non_domination_ranks(losses, np.array([0.0, 0.0, 0.0, 5.0]))
    assert ranks == [0, 0, 1, 2], broken("_fast_non_domination_rank", "samplers/evolution.py")


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler])
def test_a_view_shows_samplers_and_pruners_some_trials(sampler):
    study = optuna.create_study(sampler=sampler(seed=0))
    seen = []

    def visible(trial):
        seen.append(trial.number)
        return trial.number % 2 == 0

    for _ in range(4):
        study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.0)
    view = private.StudyView(study, visible)
    assert [t.number for t in view.trials] == [0, 2], broken("Study._get_trials", "samplers/, samplers/pruners.py")
    seen.clear()
    trial = study.ask()
    study.sampler.sample_relative(view, study.trials[trial.number], {"x": optuna.distributions.FloatDistribution(0, 1)})
    assert seen, broken("what samplers read trials through", "samplers/per_trial.py")
