"""The engine for many machines, on real Ray: two workers here, and a cluster of two nodes that loses one."""

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from optuna.trial import TrialState

from peftsearch.errors import ConfigError, InternalError
from peftsearch.options import MachineOptions
from peftsearch.searcher.options import EngineOptions, RunOptions
from peftsearch.study.objectives import parse_objectives
from tests.runs import arguments, call, kill_after, refused, start, study

pytest.importorskip("ray.tune", reason="needs the extra ray", exc_type=ImportError)
LONG = ("--search-steps", "60", "--steps", "40", "--strategy", "random")
RAY = ("--engine", "ray", "--max-concurrent", "2")
CLUSTER = """
import sqlite3, sys, threading, time
from ray.cluster_utils import Cluster
from peftsearch.cli.main import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
database, *argv = sys.argv[1:]

def lose_a_node():
    while True:
        time.sleep(0.2)
        try:
            done = sqlite3.connect(f"file:{database}?mode=ro", uri=True).execute(
                "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
            ).fetchone()[0]
        except sqlite3.Error:
            continue
        if done >= 8:
            cluster.remove_node(second, allow_graceful=False)
            return

threading.Thread(target=lose_a_node, daemon=True).start()
code = main([*argv, "--ray-address", cluster.address])
print("nodes left:", len(cluster.list_all_nodes()))
cluster.shutdown()
sys.exit(code)
"""


def training_workers(driver: subprocess.Popen) -> list[psutil.Process]:
    """The processes of Ray that train for a driver."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if "Trainable" in " ".join(process.cmdline()):  # ray::JobTrainable, ray::ResourceTrainable.train
                found.append(process)
        except psutil.Error:
            continue
    return found


def counts(folder: Path, which: str = "search") -> list:
    return [t for t in study(folder, which).trials if not t.user_attrs.get("interrupted")]


def check_whole(folder: Path, n_trials: int = 14) -> None:
    """Every baseline, place and confirmation once, all of them over."""
    trials = counts(folder)
    assert all(t.state.is_finished() for t in study(folder).trials)
    assert set(Counter(t.user_attrs["name"] for t in trials).values()) == {1}
    assert sorted(t.user_attrs["place"] for t in trials if "place" in t.user_attrs) == list(range(1, n_trials + 1))
    confirmed = Counter((t.user_attrs["name"], t.user_attrs["seed"]) for t in counts(folder, "confirm"))
    assert set(confirmed.values()) == {1}
    assert len(confirmed) == 12  # two designs, two baselines, a cheap one and the head, with two seeds
    assert yaml.safe_load((folder / "best.yaml").read_text())["verdict"]["kind"]


def check_retries(folder: Path) -> int:
    """What was lost was run again as it was; returns how many trials of the search were."""
    trials = study(folder).trials
    lost = [t for t in trials if t.user_attrs.get("interrupted") and "place" in t.user_attrs]
    for trial in lost:
        again = [t for t in counts(folder) if t.user_attrs.get("place") == trial.user_attrs["place"]]
        assert [t.params for t in again] == [trial.params]
        assert again[0].user_attrs["seed"] == trial.user_attrs["seed"]
    return len(lost)


@pytest.mark.slow
def test_a_worker_dies_then_the_driver_and_the_local_engine_goes_on(place, tmp_path):
    _, model, files = place
    argv = arguments(model, files, tmp_path / "runs", *LONG)
    driver = start([*argv, *RAY])
    lines = []
    for line in driver.stdout:
        lines.append(line)
        if "its worker died" in line:
            break
        if "trial " in line and (workers := training_workers(driver)):
            workers[0].kill()
    lines += kill_after(driver, "trial 10 ")
    text = "".join(lines)
    assert "(lost) its worker died" in text, text
    folder = tmp_path / "runs" / "r"
    n_done = sum(t.state == TrialState.COMPLETE for t in study(folder).trials)
    assert n_done >= 6 + 8
    assert call(*argv, "--resume") == 0
    check_whole(folder)
    assert check_retries(folder) >= 1
    assert call("show", folder) == 0


@pytest.mark.slow
def test_ctrl_c_is_no_loss(place, tmp_path):
    _, model, files = place
    driver = start(arguments(model, files, tmp_path / "runs", "--search-steps", "150", "--strategy", "random", *RAY))
    for line in driver.stdout:
        if "-- search" in line:
            break
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    assert driver.returncode == 130
    stopped = [t for t in study(tmp_path / "runs" / "r").trials if t.state == TrialState.FAIL]
    assert stopped
    assert all(t.user_attrs["by_user"] and t.user_attrs["interrupted"] for t in stopped)


def test_ctrl_c_is_taken_between_two_steps():
    from peftsearch.searcher.ray.driver import CtrlC

    ctrl_c, before = CtrlC(), signal.getsignal(signal.SIGINT)
    with ctrl_c.taken():
        ctrl_c.on_step_begin(iteration=1, trials=[])
    with pytest.raises(KeyboardInterrupt), ctrl_c.taken():
        signal.raise_signal(signal.SIGINT)  # rises nowhere yet: a callback may be running, or a write to the study
    with pytest.raises(KeyboardInterrupt):
        ctrl_c.on_step_begin(iteration=2, trials=[])
    with pytest.raises(KeyboardInterrupt, match="pressed twice"):
        ctrl_c._press(signal.SIGINT, None)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_references_are_trained_by_workers_too(finished, tmp_path):
    """Their scores are those of the local engine."""
    runs = {name: tmp_path / name for name in ("ray", "local")}
    for name, engine in (("ray", RAY), ("local", ())):
        shutil.copytree(finished, runs[name] / "r")
        argv = ["run", "--resume", "--runs", str(runs[name]), "--name", "r", "--baselines", "full,top-2", *engine]
        process = start(argv)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    rows = [yaml.safe_load((folder / "r" / "best.yaml").read_text())["comparison"] for folder in runs.values()]
    assert [row["name"] for row in rows[0]][-2:] == ["full", "top-2"]
    for ours, local in zip(*rows, strict=True):
        assert ours["name"] == local["name"]
        if ours["reference"]:
            assert sorted(ours["validation"]["values"]) == pytest.approx(sorted(local["validation"]["values"]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("fault", "ends_the_study"), [(ValueError("nan"), False), (OSError("disk full"), True)])
def test_a_score_that_is_no_number_is_its_trials_own_fault(fault, ends_the_study):
    from peftsearch.searcher.ray.searcher import StudySearch

    def complete(work, outcome):
        raise fault

    failed = []
    runner = SimpleNamespace(complete=complete, fail=lambda work, reason: failed.append(reason))
    search = StudySearch(None, runner)
    search._works["a"] = "work", SimpleNamespace(join=lambda: None)
    search.on_trial_complete("a", {"outcome": None})
    assert (search.fault is fault) == ends_the_study
    assert failed == ([] if ends_the_study else ["ValueError: nan"])


@pytest.mark.filterwarnings("ignore")
def test_a_defect_in_recording_ends_the_study_and_is_no_loss():
    from peftsearch.searcher.ray.searcher import StudySearch

    lost = []
    runner = SimpleNamespace(
        complete=lambda work, outcome: parse_objectives(None),
        lose=lambda work, reason, by_user: lost.append((work, by_user)),
    )
    search = StudySearch(None, runner)
    search._works |= {name: (name, SimpleNamespace(join=lambda: None)) for name in ("a", "b")}
    search.on_trial_complete("a", {"outcome": None})
    search.on_trial_complete("b", error=True)
    assert isinstance(search.fault, InternalError)
    assert lost == [("a", True), ("b", True)]


@pytest.mark.filterwarnings("ignore")
def test_tune_saves_and_restores_a_search_without_a_state(tmp_path):
    from peftsearch.searcher.ray.searcher import StudySearch

    search = StudySearch(None, None)
    assert (search.metric, search.mode) == ("score", "max")
    search.save_to_dir(str(tmp_path))
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]
    search.restore_from_dir(str(tmp_path))


@pytest.mark.slow
def test_a_cluster_loses_a_node(place, tmp_path):
    _, model, files = place
    argv = arguments(model, files, tmp_path / "runs", *LONG, *RAY)
    database = str(tmp_path / "runs" / "r" / "study.db")
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, database, *argv], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nodes left: 1" in done.stdout
    check_whole(tmp_path / "runs" / "r")
    check_retries(tmp_path / "runs" / "r")


class TestRefused:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--engine", "spark"], "unknown engine 'spark'"),
            (["--max-concurrent", "0"], "--max-concurrent must be at least 1"),
            (["--gpus-per-trial", "1.5"], "fraction below 1 or a whole number"),
            (["--cpus-per-trial", "0"], "must be above 0"),
            (["--ray-address", "nonsense"], "give HOST:PORT"),
            (["--ray-address", "ray://127.0.0.1:10001"], "Ray Client is not supported"),
            (["--ray-address", "127.0.0.1:1"], "does not answer"),
        ],
    )
    def test_options(self, place, tmp_path, capsys, more, message):
        _, model, files = place
        assert message in refused(capsys, *arguments(model, files, tmp_path / "runs", *RAY, *more))
        assert not (tmp_path / "runs").exists()

    @pytest.mark.filterwarnings("ignore")
    def test_no_node_has_both(self, monkeypatch):
        from peftsearch.searcher.ray import driver as engine

        nodes = [{"CPU": 64.0}, {"CPU": 4.0, "GPU": 1.0}]
        monkeypatch.setattr(engine.ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
        monkeypatch.setattr(engine.ray, "cluster_resources", lambda: {"CPU": 68.0, "GPU": 1.0})
        assert engine._resources_of(EngineOptions(cpus_per_trial=4)) == {"cpu": 4, "gpu": 1}
        with pytest.raises(ConfigError, match="no node of the cluster has that many"):
            engine._resources_of(EngineOptions(gpus_per_trial=64))
        with pytest.raises(ConfigError, match="no node of the cluster has both"):
            engine._resources_of(EngineOptions(cpus_per_trial=8))
        assert engine._n_at_once({"cpu": 3, "gpu": 0}) == 21 + 1, "a trial is not spread over nodes"

    def test_a_missing_extra(self, place, tmp_path, capsys, monkeypatch):
        _, model, files = place
        monkeypatch.setattr("peftsearch.searcher.run.find_spec", lambda name: None)
        line = refused(capsys, *arguments(model, files, tmp_path / "runs", *RAY))
        assert "pip install 'peftsearch[ray]'" in line
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("gpus", "device"), [(1.0, "cpu"), (0.5, None)])
def test_packed_weights_on_gpus_are_refused(gpus, device):
    from peftsearch.searcher.ray.driver import _require_cpu

    def packed(device):
        return RunOptions(budget="1%", quantize="nf4", machine=MachineOptions(device=device))

    with pytest.raises(ConfigError, match=r"works only on CPUs.*peftsearch worker RUN"):
        _require_cpu(
            RunOptions(budget="1%", quantize="nf4", machine=MachineOptions(device=device)), {"cpu": 1.0, "gpu": gpus}
        )
    _require_cpu(
        RunOptions(budget="1%", quantize="nf4", machine=MachineOptions(device="cpu")), {"cpu": 1.0, "gpu": 0.0}
    )
