"""Trials that a schedule hands out and a runner records, without training: what was lost, and to whom."""

from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from peftsearch.design.baselines import baselines_of, uniform
from peftsearch.engine.job import Outcome
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import InternalError, StudyError
from peftsearch.samplers import make_sampler
from peftsearch.samplers.pruners import make_pruner
from peftsearch.samplers.strategy import load_strategy
from peftsearch.searcher import slow
from peftsearch.searcher.finalists import choose_finalists
from peftsearch.searcher.lengths import choose_lengths
from peftsearch.searcher.options import SearchOptions
from peftsearch.searcher.runner import TrialRunner
from peftsearch.searcher.schedule import Pause, Schedule
from peftsearch.study.claims import new_owner, release, release_dead
from peftsearch.study.folder import StudyFolder, fetch_settings
from peftsearch.study.objectives import Constraints, parse_objectives
from peftsearch.study.private_optuna import create_trial, write_system_attribute, write_user_attribute
from peftsearch.study.settings import StudySettings
from peftsearch.study.storage import _ServerLock, open_storage, storage_faults
from peftsearch.study.trials import is_interrupted, retry_of, stage_of
from tests.samplers.driving import BACKBONE, BUDGET, SPACE, context, value_of


class Shown:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.trials = []
        self.notes = []

    def trial(self, line, steps):
        self.trials.append((line.state, line.name))

    def phase(self, name, n_trials):
        pass

    def note(self, text):
        self.notes.append(text)


def outcome(score=0.5):
    return Outcome(
        value=score, score=score, loss=1.0, task_scores=(score,), losses=((1.0,),), right=((),), n_params=1, n_head=1,
        train_loss=1.0, train_s=1.0, wall_s=1.0,
    )  # fmt: skip


@pytest.fixture
def parts(tmp_path):
    """A schedule of S4 with 24 trials on a real study; its runner, its folder, and what was shown."""
    ctx, strategy = context(n_trials=24), replace(load_strategy("s4"), trials=24)
    setup = SimpleNamespace(
        space=SPACE, backbone=BACKBONE, budget=BUDGET, context=ctx, strategy=strategy, constraints=Constraints(),
        sampler=make_sampler("s4", ctx, {}), pruner=make_pruner(strategy, 3),
        options=SimpleNamespace(seed=0, search=SearchOptions()),
        training=TrainingSettings(learning_rate=1e-3), objectives=parse_objectives("score"),
        suite=SimpleNamespace(tasks=(None,), n_test=10, metric="accuracy", kind="classification", majority_score=0.0),
        memory=None, loaded=None, references=(), select="metric", baselines=tuple(baselines_of(SPACE, BACKBONE)),
        lengths=choose_lengths(strategy.search, n_train=[10], batch_size=1, steps=10),
    )  # fmt: skip
    folder, shown = StudyFolder(tmp_path / "r", StudySettings()), Shown()
    runner = TrialRunner(setup, folder, shown)
    yield Schedule(setup, folder, runner, shown), runner, folder, shown
    folder.close()


def test_steps_that_became_slow_are_told_once(parts, monkeypatch):
    schedule, runner, _, shown = parts
    monkeypatch.setattr(slow, "_FEW", 1)
    runner.slow.expected_s = 0.01
    works = []
    for seconds_a_step in (0.04, 1.0, 1.0):
        while (work := schedule.next()).job.end == 0:
            runner.complete(work, outcome())
        works.append(work)
        runner.complete(work, replace(outcome(), train_s=seconds_a_step * work.job.end))
    told = [note for note in shown.notes if "A step of" in note]
    assert len(told) == 1
    assert told[0].startswith(f"A step of {works[1].name} took 1000 ms, and 10 ms before")


def test_a_claimed_trial_has_given_a_sign_of_life(parts):
    """Its owner may die before it trains, on a host of which only the heartbeat tells."""
    schedule, _, folder, _ = parts
    work = schedule.next()
    write_user_attribute(folder.search, work.trial, "owner", "elsewhere 1 1 x")
    with folder._storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = '2000-01-01 00:00:00'"))
    assert release_dead(folder.search, new_owner()) == 1


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_design_is_not_trained_twice_with_one_seed(parts):
    """It takes over what was measured of the first."""
    _, runner, folder, shown = parts
    design = uniform("lora")
    first = runner.begin(folder.search, folder.search.ask(), design, "search", "trial 1")
    measured = replace(outcome(0.7), measures={"params": 8, "latency_s": 0.1})
    runner.complete(first, measured)
    assert runner.begin(folder.search, folder.search.ask(), design, "search", "trial 2") is None
    one, two = folder.search.trials
    assert (two.user_attrs["reused_from"], two.values) == (one.number, one.values)
    assert two.user_attrs["measures"] == one.user_attrs["measures"] == measured.measures
    assert ("reused", "trial 2") in shown.trials
    assert runner.begin(folder.search, folder.search.ask(), design, "search", "trial 3", seed=1) is not None


@pytest.mark.parametrize("end", ["complete", "report", "lose"])
def test_a_trial_that_others_took_for_lost_ends_nothing(parts, end):
    schedule, runner, folder, shown = parts
    work = schedule.next()
    release(folder.search, folder.search.trials[work.trial.number], "gave no sign of life")

    def run(job, report):
        if end == "report":
            work.trial.report(0.5, 1)
        if end == "lose":
            raise KeyboardInterrupt
        return outcome()

    if end == "lose":
        with pytest.raises(KeyboardInterrupt):
            runner.run(work, SimpleNamespace(run=run))
    else:
        runner.run(work, SimpleNamespace(run=run))
        assert shown.trials[-1] == ("lost", work.name)
    assert is_interrupted(folder.search.trials[work.trial.number])


def test_a_stage_waits_for_the_retry_of_its_further_trial(parts):
    schedule, runner, folder, _ = parts
    while (work := schedule.next()).phase == "baselines":
        runner.complete(work, outcome())
    first, works = work, []
    while not isinstance(work := schedule.next(), Pause):  # the others of the stage, and one further trial
        works.append(work)
    further = works.pop()
    for work in works:
        runner.complete(work, outcome(value_of({"name": work.name})))
    runner.lose(further, "its worker died")
    runner.complete(first, outcome())
    again = schedule.next()
    assert again.name == further.name
    assert stage_of(folder.search.trials[again.trial.number]) == "grouping"
    assert "stages" not in folder.search.user_attrs, "decided before the retry has ended"


def test_a_retry_takes_over_no_owner_and_no_rung():
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("owner", "elsewhere 1 1 x")
    trial.set_user_attr("interrupted", True)
    for key in ("completed_rung_0", "nsga2:generation"):
        write_system_attribute(study, trial, key, 1)
    study.tell(trial, state=TrialState.FAIL)
    again = create_trial(study, retry_of(study.trials[0]))
    assert study.trials[again.number].user_attrs == {}
    assert study.trials[again.number].system_attrs == {"nsga2:generation": 1}


def test_the_decision_of_a_search_with_a_failed_trial_is_confirmed(parts):
    schedule, runner, folder, _ = parts
    setup, n = schedule._setup, 0
    while (work := schedule.next()).phase != "confirm":
        n += work.phase == "search"
        if n == 2 and work.phase == "search":
            runner.fail(work, "out of memory")
        else:
            runner.complete(work, outcome(value_of({"name": work.name})))
    decided = setup.sampler.decided_trial(folder.search.trials)
    names = [f.name for f in choose_finalists(folder.search, setup, runner.fit)]
    assert decided is not None
    assert decided.user_attrs["name"] == next(name for name in names if name.startswith("trial"))


class TestStorage:
    def test_parts_of_a_password_that_a_driver_takes_for_a_host_are_not_shown(self):
        url = "postgresql://bob:s3@cret@127.0.0.1:1/db"
        with pytest.raises(StudyError) as error, storage_faults(url):
            raise sqlalchemy.exc.OperationalError("", {}, Exception("failed to resolve host 'cret@127.0.0.1'"))
        assert "cret" not in str(error.value)

    def test_a_password_is_not_shown(self):
        with pytest.raises(StudyError) as told:
            open_storage("postgresql+nothing://me:secret@host/x")
        assert "secret" not in str(told.value)

    def test_looking_for_a_study_makes_no_database(self, tmp_path):
        with pytest.raises(StudyError, match="there is no file"):
            fetch_settings(tmp_path / "r", f"sqlite:///{tmp_path / 'typo.db'}")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("answers", "takes"), [([1], True), ([0, 0, 1], True), ([None], False)])
    def test_mysqls_lock_is_held_when_it_says_so(self, answers, takes):
        class Connection:
            def execute(self, statement):
                return SimpleNamespace(scalar=lambda: answers.pop(0))

            def invalidate(self):
                pass

            close = invalidate

        lock = _ServerLock(SimpleNamespace(connect=Connection), "mysql")
        assert "-1" not in lock._take, "MariaDB refuses a negative wait, and answers NULL"
        if takes:
            lock.__enter__()
        else:
            with pytest.raises(StudyError, match="gives no lock"):
                lock.__enter__()
        assert not answers


def test_a_defect_of_the_project_ends_the_run_and_leaves_the_study_to_resume(parts):
    """An error of the package's own code would meet every trial: none is recorded as failed."""
    schedule, runner, folder, _ = parts
    work = schedule.next()
    with pytest.raises(InternalError, match=r"a defect of peftsearch.*AttributeError.*please open an issue.*--debug"):
        runner.run(work, SimpleNamespace(run=lambda job, report: parse_objectives(None)))
    lost = folder.search.trials[work.trial.number]
    assert is_interrupted(lost)
    assert schedule.next().name == work.name, "it is run again"


def test_an_error_from_elsewhere_is_the_trials_own(parts):
    schedule, runner, folder, shown = parts
    work = schedule.next()
    runner.run(work, SimpleNamespace(run=lambda job, report: len(None)))
    assert shown.trials[-1] == ("failed", work.name)
    assert "TypeError" in folder.search.trials[work.trial.number].user_attrs["reason"]
