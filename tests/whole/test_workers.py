"""Several processes on one study: `peftsearch worker`, claims, lost trials and their retries."""

import os
import signal
import time
from collections import Counter

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from peftsearch.errors import StudyError
from peftsearch.study.claims import MAX_LOSSES, is_dead, new_owner, release, release_dead
from peftsearch.study.folder import fetch_settings
from peftsearch.study.storage import open_storage
from tests.runs import arguments, kill_after, refused, start, study
from tests.servers import Postgres, trials_of

LONG = ("--search-steps", "60", "--steps", "60")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A PostgreSQL server of this module."""
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(place, tmp_path_factory, request):
    """A run that was killed at its first baseline, ended by four workers, one of which was killed in mid-trial."""
    _, model, files = place
    runs = tmp_path_factory.mktemp("workers")
    kind = request.param
    url = f"sqlite:///{runs / 'shared.db'}" if kind == "sqlite" else request.getfixturevalue("server").url("shared")
    argv = arguments(model, files, runs, "--storage", url, *LONG)
    kill_after(start(argv), "lora ")
    workers = [start(["worker", str(runs / "r"), "--storage", url]) for _ in range(4)]
    kill_after(workers[0], "trial ")
    ended = [(w.communicate(timeout=240)[0], w.returncode) for w in workers[1:]]
    return runs / "r", url, ended


@pytest.mark.slow
class TestFourProcesses:
    def test_all_end_well(self, shared):
        folder, _, ended = shared
        assert not [(code, out[-6000:]) for out, code in ended if code]
        assert yaml.safe_load((folder / "best.yaml").read_text())["verdict"]["kind"]

    def test_no_trial_is_run_twice(self, shared):
        _, url, _ = shared
        search, confirm = trials_of(url), trials_of(url, "confirm")
        counts = [t for t in search if not t.user_attrs.get("interrupted")]
        assert all(t.state.is_finished() for t in search)
        assert set(Counter(t.user_attrs["name"] for t in counts).values()) == {1}
        places = sorted(t.user_attrs["place"] for t in counts if "place" in t.user_attrs)
        assert places == list(range(1, len(places) + 1))
        slots = Counter(str(t.system_attrs["peftsearch:s4"]) for t in counts if "peftsearch:s4" in t.system_attrs)
        assert set(slots.values()) == {1}
        confirmed = Counter((t.user_attrs["name"], t.user_attrs["seed"]) for t in confirm)
        assert set(confirmed.values()) == {1}
        assert len({t.user_attrs["owner"] for t in counts}) > 1, "one process did it all"

    def test_what_a_killed_worker_ran_was_run_again(self, shared):
        _, url, _ = shared
        trials = trials_of(url)
        for lost in (t for t in trials if t.user_attrs.get("interrupted") and "place" in t.user_attrs):
            again = [t for t in trials if t.user_attrs.get("place") == lost.user_attrs["place"] and t is not lost]
            assert again[-1].params == lost.params
            assert again[-1].user_attrs["seed"] == lost.user_attrs["seed"]

    def test_a_machine_that_does_not_see_the_folder(self, shared, tmp_path):
        folder, url, _ = shared
        fetch_settings(tmp_path / "r", url)
        assert (tmp_path / "r" / "settings.yaml").read_text() == (folder / "settings.yaml").read_text()
        with pytest.raises(StudyError, match="holds no study of that name"):
            fetch_settings(tmp_path / "other", url)


@pytest.mark.slow
def test_a_server_that_goes_down_in_mid_search_loses_nothing(server, place, tmp_path):
    """Its power is cut in mid-trial: the run ends with one line, and the same command goes on where it was."""
    _, model, files = place
    url = server.url("falls")
    argv = arguments(model, files, tmp_path, "--storage", url, *LONG)
    process = start(argv)
    seen = [next(line for line in process.stdout if "trial 3 " in line)]
    server.stop()
    seen += process.communicate(timeout=240)[0].splitlines()
    server.start()
    assert process.returncode == 2, seen[-5:]
    assert "Traceback" not in "".join(seen)
    assert "s3cret" not in "".join(seen)
    again = start([*argv, "--resume"])
    out = again.communicate(timeout=240)[0]
    assert again.returncode == 0, out[-3000:]
    trials = trials_of(url)
    counts = Counter(t.user_attrs["name"] for t in trials if not t.user_attrs.get("interrupted"))
    assert set(counts.values()) == {1}
    assert all(t.state.is_finished() for t in trials)
    whole = start(arguments(model, files, tmp_path / "whole", *LONG))
    assert whole.communicate(timeout=240)[0]
    known = {t.user_attrs["name"]: t.value for t in study(tmp_path / "whole" / "r").trials}
    assert {t.user_attrs["name"]: t.value for t in trials if not t.user_attrs.get("interrupted")} == known


def test_a_worker_without_a_run(tmp_path, capsys):
    assert "holds no study" in refused(capsys, "worker", tmp_path / "nothing")


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
class TestClaims:
    @pytest.fixture
    def trials(self, tmp_path):
        storage = open_storage(f"sqlite:///{tmp_path / 'x.db'}")
        return optuna.create_study(storage=storage)

    def begin(self, study, owner, **facts):
        trial = study.ask()
        for key, value in {"owner": owner, "name": "trial 1", "seed": 0, "design": {}, **facts}.items():
            trial.set_user_attr(key, value)
        return trial

    def test_owners(self):
        own = new_owner()
        host, pid, started, _ = own.split()
        assert is_dead(own, own) is False
        assert is_dead(new_owner(), own) is True, "an earlier opening by this process"
        assert is_dead(f"{host} {pid} 1.00 x", own) is True
        assert is_dead(f"elsewhere {pid} {started} x", own) is None
        assert is_dead("nonsense", own) is True

    def test_a_killed_process_is_dead_before_its_parent_hears_of_it(self):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, new_owner().encode())
            time.sleep(60)
            os._exit(0)
        alive, own = os.read(read, 1000).decode(), new_owner()
        assert is_dead(alive, own) is False
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped: a zombie
        assert is_dead(alive, own) is True
        os.waitpid(child, 0)
        assert is_dead(alive, own) is True

    def test_setting_the_clock_kills_nobody(self, monkeypatch):
        before = new_owner().split()[2]
        psutil = pytest.importorskip("psutil")
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: 1.0, raising=False)
        assert new_owner().split()[2] == before

    def test_the_living_are_left_alone(self, trials):
        own = new_owner()
        self.begin(trials, own)
        self.begin(trials, "elsewhere 1 1.00 x")
        dead = self.begin(trials, new_owner())
        assert release_dead(trials, own) == 1
        assert [t.state for t in trials.trials] == [TrialState.RUNNING, TrialState.RUNNING, TrialState.FAIL]
        assert trials.trials[dead.number].user_attrs["interrupted"]

    def test_a_trial_that_ends_while_it_is_looked_at_stays_as_it_ended(self, trials, monkeypatch):
        """Its process records the end and exits between the listing of running trials and the look at the process."""
        trial = self.begin(trials, new_owner())

        def ends(owner, own):
            trials.tell(trial, 0.5)
            return True

        monkeypatch.setattr("peftsearch.study.claims.is_dead", ends)
        assert release_dead(trials, new_owner()) == 0
        assert trials.trials[trial.number].state == TrialState.COMPLETE

    def test_a_trial_that_kills_its_process_ends(self, trials):
        for n in range(1, MAX_LOSSES + 1):
            trial = self.begin(trials, "x")
            again = release(trials, trials.trials[trial.number], "gone")
            assert again == (n < MAX_LOSSES)
        assert [bool(t.user_attrs.get("interrupted")) for t in trials.trials] == [True] * (MAX_LOSSES - 1) + [False]
        assert trials.trials[-1].user_attrs["reason"] == "gone, 3 times; it is not tried again"

    def test_losses_before_a_trial_has_a_name_are_of_no_one_trial(self, trials):
        for _ in range(2 * MAX_LOSSES):
            trial = trials.ask()  # killed while the sampler chose
            assert release(trials, trials.trials[trial.number], "gone")

    def test_what_the_user_stops_is_never_given_up(self, trials):
        for _ in range(2 * MAX_LOSSES):
            trial = self.begin(trials, "x")
            assert release(trials, trials.trials[trial.number], "stopped", by_user=True)
