"""`peftsearch run` from end to end on a tiny model: the result, resuming, failures, and what is refused."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from peftsearch.architecture import Architecture, Design
from peftsearch.engines.local import LocalEngine
from peftsearch.training import Diverged
from tests.runs import arguments, call, kill_after, save_model, save_task, start


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, save_model(folder / "model"), save_task(folder)


@pytest.fixture(scope="module")
def finished(place):
    """One uninterrupted run."""
    folder, model, files = place
    assert call(*arguments(model, files, folder / "whole")) == 0
    return folder / "whole" / "r"


@pytest.fixture
def args(place, tmp_path):
    _, model, files = place
    return lambda *more: arguments(model, files, tmp_path / "runs", *more)


def study(folder, which="search"):
    return optuna.load_study(study_name=which, storage=f"sqlite:///{folder / 'study.db'}")


def story(folder, which="search"):
    """What was tried and what came of it, interrupted trials apart."""
    return [
        (t.user_attrs["name"] if which == "confirm" else t.user_attrs.get("baseline"), t.user_attrs["design"],
         t.user_attrs.get("seed"), t.value, t.state)
        for t in study(folder, which).trials
        if t.state.is_finished() and not t.user_attrs.get("interrupted")
    ]  # fmt: skip


class TestResult:
    def test_best_yaml_holds_what_is_promised(self, finished):
        best = yaml.safe_load((finished / "best.yaml").read_text())
        assert best["verdict"]["kind"] in {"winner", "baseline", "tie", "no_signal"}
        architecture = Architecture.from_dict(best["architecture"])
        assert architecture.n_params == best["budget"]["used"] <= best["budget"]["n_params"]
        assert best["scores"]["validation"]["n"] == 2
        assert best["model"]["revision"].startswith("sha256:")
        assert best["task"]["fingerprint"]
        assert {"torch", "transformers", "optuna", "peftsearch"} <= set(best["versions"])
        Design.from_dict(best["design"])
        names = [row["name"] for row in best["comparison"]]
        assert {"head", "lora", "adapter", "bitfit", "prefix", "s4-paper"} <= set(names)
        assert [s["stage"] for s in best["stages"]][:3] == ["allocation", "tunable", "methods.G1"] or (
            best["stages"][0]["stage"] == "grouping"
        )

    def test_the_winners_mean_is_at_least_the_best_baselines(self, finished):
        best = yaml.safe_load((finished / "best.yaml").read_text())
        confirmed = [r for r in best["comparison"] if r["validation"]]
        if best["verdict"]["kind"] in {"winner", "baseline"}:
            pick = next(r for r in confirmed if r["name"] == best["name"])
            assert pick["validation"]["mean"] >= max(r["validation"]["mean"] for r in confirmed if r["baseline"])
        else:
            top = max(confirmed, key=lambda r: r["validation"]["mean"])
            assert best["budget"]["used"] <= top["n_params"]

    def test_every_training_is_a_trial(self, finished):
        search, confirm = study(finished), study(finished, "confirm")
        assert [t.user_attrs.get("baseline") for t in search.trials[:6]] == [
            "head", "lora", "adapter", "bitfit", "prefix", "s4-paper",
        ]  # fmt: skip
        assert len(search.trials) <= 6 + 14
        assert {t.user_attrs["seed"] for t in confirm.trials} == {1000, 1001}
        table = pd.read_csv(finished / "trials.csv")
        assert len(table) == len(search.trials) + len(confirm.trials)

    def test_best_yaml_goes_into_a_model_as_the_readme_says(self, place, finished):
        import peftsearch
        from peftsearch.backbone import load_backbone

        _, model, _ = place
        best = yaml.safe_load((finished / "best.yaml").read_text())
        loaded = load_backbone(str(model), num_labels=2)
        injection = peftsearch.inject(loaded.model, peftsearch.Architecture.from_dict(best["architecture"]))
        n_trained = sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
        assert n_trained == best["budget"]["used"] + sum(p.numel() for p in loaded.model.classifier.parameters())
        injection.remove()

    def test_confirmed_states_are_safetensors(self, finished):
        files = list((finished / "confirmed").iterdir())
        assert files
        assert {f.suffix for f in files} == {".safetensors"}

    def test_show_draws_the_architecture(self, finished, capsys):
        assert call("show", finished) == 0
        assert call("show", finished / "best.yaml") == 0
        out = capsys.readouterr().out
        assert "trainable parameters, input side left" in out
        assert yaml.safe_load((finished / "best.yaml").read_text())["verdict"]["statement"] in out


class TestResume:
    def test_the_same_command_again_trains_nothing_and_gives_the_same(self, place, finished, capsys):
        folder, model, files = place
        before = story(finished), story(finished, "confirm"), (finished / "best.yaml").read_text()
        assert call(*arguments(model, files, folder / "whole", "--json")) == 0
        after = yaml.safe_load((finished / "best.yaml").read_text())
        shown = json.loads(capsys.readouterr().out)
        assert (story(finished), story(finished, "confirm")) == before[:2]
        assert {**after, "made": 0} == {**yaml.safe_load(before[2]), "made": 0} == {**shown, "made": 0}

    @pytest.mark.parametrize("marker", ["adapter ", "trial 9 ", "-- confirm"])
    def test_kill_9_and_resume_equal_an_uninterrupted_run(self, place, finished, tmp_path, marker):
        _, model, files = place
        argv = arguments(model, files, tmp_path / "killed")
        lines = kill_after(start(argv), marker, delay_s=0.05)
        assert any(marker in line for line in lines), "".join(lines)
        done = [s for s in story(tmp_path / "killed" / "r") if s[-1] == TrialState.COMPLETE]
        assert done
        resumed = start([*argv, "--resume"])
        out, _ = resumed.communicate(timeout=120)
        assert resumed.returncode == 0, out
        assert "Resuming" in out
        assert story(tmp_path / "killed" / "r") == story(finished)
        assert story(tmp_path / "killed" / "r", "confirm") == story(finished, "confirm")
        assert study(tmp_path / "killed" / "r").user_attrs["stages"] == study(finished).user_attrs["stages"]

    def test_resume_needs_no_more_than_the_name(self, place, finished, capsys, monkeypatch):
        folder, _, _ = place
        before = story(finished), story(finished, "confirm")
        assert call("run", "--resume", "--runs", folder / "whole", "--name", "r") == 0
        assert call("run", "--resume", "--runs", folder / "whole") == 0
        assert (story(finished), story(finished, "confirm")) == before

    def test_studies_of_one_storage_do_not_mix(self, args, tmp_path):
        url = f"sqlite:///{tmp_path / 'shared.db'}"
        assert call(*args("--storage", url)) == 0
        assert call(*args("--storage", url, "--runs", tmp_path / "other", "--budget", "30%")) == 0
        bests = [yaml.safe_load((p / "r" / "best.yaml").read_text()) for p in (tmp_path / "runs", tmp_path / "other")]
        shares = [max(row["share"] for row in best["comparison"] if row["share"]) for best in bests]
        assert max(shares) <= 1

    def test_resume_without_a_study(self, args, tmp_path, capsys):
        assert call(*args("--resume")) == 2
        assert "no study to resume" in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()


class TestFailures:
    def test_a_failed_trial_is_recorded_and_the_search_goes_on(self, args, tmp_path, monkeypatch):
        run, calls = LocalEngine.run, []

        def flaky(self, job, report=None):
            calls.append(job)
            if len(calls) in (8, 12):
                raise Diverged("the loss is nan at step 2")
            if len(calls) == 14:
                raise RuntimeError("out of\nmemory")
            return run(self, job, report)

        monkeypatch.setattr(LocalEngine, "run", flaky)
        assert call(*args()) == 0
        failed = [t for t in study(tmp_path / "runs" / "r").trials if t.state == TrialState.FAIL]
        assert [t.user_attrs["reason"] for t in failed] == [
            "Diverged: the loss is nan at step 2", "Diverged: the loss is nan at step 2", "RuntimeError: out of memory",
        ]  # fmt: skip

    def test_a_learning_rate_without_measure_is_recorded_as_diverged(self, args, tmp_path, capsys):
        assert call(*args("--learning-rate", "1e30")) in (0, 1)
        reasons = [t.user_attrs.get("reason", "") for t in study(tmp_path / "runs" / "r").trials]
        assert any("Diverged" in r for r in reasons)

    def test_all_failed_exits_1_and_says_why(self, args, monkeypatch, capsys):
        monkeypatch.setattr(LocalEngine, "calibrate", lambda *a, **k: (0.1, 0.1))

        def fail(self, job, report=None):
            raise Diverged("the loss is nan at step 1")

        monkeypatch.setattr(LocalEngine, "run", fail)
        assert call(*args()) == 1
        assert "trials failed: Diverged: the loss is nan at step 1" in capsys.readouterr().err


class TestBudgets:
    def test_a_budget_that_holds_no_uniform_baseline(self, args, tmp_path, capsys):
        """64 parameters: one block's prefix, and none of the baselines but the head."""
        assert call(*args("--budget", "64", "--strategy", "random", "--trials", "3")) == 0
        assert "does not fit" in capsys.readouterr().out

    def test_a_method_that_is_misspelt_in_a_space(self, args, tmp_path, capsys):
        path = tmp_path / "mine.yaml"
        path.write_text("allocations: [uniform]\nmethods: [lora, adpter]\n")
        assert "unknown method 'adpter'; did you mean 'adapter'" in refused(capsys, *args("--space", path))


class TestStrategies:
    @pytest.mark.parametrize("strategy", ["random", "tpe"])
    def test_other_strategies_and_pruning(self, args, tmp_path, strategy):
        assert call(*args("--strategy", strategy, "--search-steps", "4")) == 0
        trials = [t for t in study(tmp_path / "runs" / "r").trials if t.user_attrs.get("kind") != "baseline"]
        assert sum(not t.user_attrs.get("infeasible", False) for t in trials) == 14

    @pytest.mark.parametrize("space", ["uniform", "lora", "s4-lr"])
    def test_other_spaces(self, args, tmp_path, space):
        assert call(*args("--space", space, "--strategy", "random", "--trials", "4", "--seeds", "1")) == 0
        best = yaml.safe_load((tmp_path / "runs" / "r" / "best.yaml").read_text())
        assert best["space"] == space
        if space == "s4-lr":
            assert sum(r["name"].startswith("lora lr=") for r in best["comparison"]) == 3

    def test_a_decoder_without_biases_leaves_bitfit_out(self, place, tmp_path, capsys):
        _, _, files = place
        argv = arguments(save_model(tmp_path / "llama", "llama"), files, tmp_path / "runs", "--strategy", "random")
        assert call(*argv) == 0
        out = capsys.readouterr().out
        assert "methods that cannot act on this backbone are left out: bitfit" in out
        best = yaml.safe_load((tmp_path / "runs" / "r" / "best.yaml").read_text())
        assert "bitfit" not in {r["name"] for r in best["comparison"]}

    def test_count_head(self, args, tmp_path):
        assert call(*args("--count-head")) == 0
        best = yaml.safe_load((tmp_path / "runs" / "r" / "best.yaml").read_text())
        model_params = best["model"]["n_params"]
        assert best["budget"]["n_params"] == int(0.2 * model_params) - (32 * 2 + 2)


def refused(capsys, *argv):
    """Run a command that must be refused; returns its one line."""
    assert call(*argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


class TestBadInput:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--budget", "0"], "above zero"),
            (["--budget=-1%"], "above zero"),
            (["--budget", "-1%"], "above zero"),
            (["--budget", "9" * 5000], "is not a budget"),
            (["--seed", "-1"], "--seed must be"),
            (["--storage", "sqlite://"], "names no database"),
            (["--storage", "mysql://nobody@localhost/x"], "cannot be opened"),
            (["--storage", "sqlite:////no/such/folder/x.db"], "storage cannot be used"),
            (["--space", "peftsearch.space:SearchSpace"], "is a class"),
            (["--budget", "200%"], "at most 100%"),
            (["--budget", "nonsense"], "is not a budget"),
            (["--budget", "10"], "holds no design of space s4"),
            (["--model", "no/such-model"], "no/such-model"),
            (["--space", "s44"], "did you mean 's4'"),
            (["--strategy", "rando"], "did you mean 'random'"),
            (["--trials", "3"], "at least"),
            (["--trials", "0"], "must be at least 1"),
            (["--steps", "0"], "--steps must be at least 1"),
            (["--learning-rate", "-1"], "'learning_rate' must be above 0"),
            (["--learning-rate", "nan"], "'learning_rate' must be above 0"),
            (["--device", "tpu"], "tpu"),
            (["--dtype", "float12"], "float12"),
            (["--text-column", "txet"], "did you mean 'text'|nearest|'text'"),
            (["--metric", "acuracy"], "did you mean 'accuracy'"),
            (["--storage", "not a url"], "storage"),
            (["--max-length", "600"], "has positions for"),
            (["--anatomy", "nowhere.yaml"], "nowhere.yaml"),
        ],
    )
    def test_options(self, args, tmp_path, capsys, more, message):
        import re

        line = refused(capsys, *args(*more))
        assert re.search(message, line), line
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "not|No such"),
            (b"", "empty"),
            (b"text,label\n", "no rows|empty|header"),
            ("text,label\nna\u00efve film,good\n".encode("latin-1"), "UTF-8"),
            (b"a,b,c\nx,y,z\n", "column"),
            (b"text,label\ngood film,positive\nfine film,positive\n", "one class|class"),
        ],
    )
    def test_files(self, place, tmp_path, capsys, content, message):
        import re

        _, model, (_, validation) = place
        train = tmp_path / "train.csv"
        if content is not None:
            train.write_bytes(content)
        line = refused(capsys, *arguments(model, (train, validation), tmp_path / "runs"))
        assert re.search(message, line), line
        assert not (tmp_path / "runs").exists()

    def test_labels_unseen_in_training(self, place, tmp_path, capsys):
        _, model, (train, _) = place
        other = tmp_path / "validation.csv"
        other.write_text("text,label\na film,strange\nb film,positive\n")
        assert "strange" in refused(capsys, *arguments(model, (train, other), tmp_path / "runs"))

    def test_nan_in_a_regression_target(self, place, tmp_path, capsys):
        _, model, _ = place
        train = tmp_path / "train.csv"
        train.write_text("text,score\n" + "".join(f"w{i} film,{i / 7}\n" for i in range(20)) + "bad film,nan\n")
        line = refused(capsys, *arguments(model, (train, train), tmp_path / "runs", "--kind", "regression"))
        assert "nan" in line.lower()

    def test_no_budget(self, tmp_path, capsys):
        assert "run needs --budget, such as --budget 0.1%" in refused(capsys, "run", "--runs", tmp_path)

    def test_options_that_do_not_parse_are_one_line_too(self, capsys):
        with pytest.raises(SystemExit) as caught:
            call("run", "--budget", "1%", "--trials", "many")
        assert caught.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1

    @pytest.mark.parametrize("name", ["../x", "/tmp/x", "", "a\nb", "x" * 300, ".lock"])
    def test_names_that_leave_the_folder(self, args, capsys, name):
        assert "a name has 1 to 100 letters" in refused(capsys, *args("--name", name))

    def test_unknown_task(self, tmp_path, capsys):
        assert "did you mean 'sentiment'" in refused(
            capsys, "run", "--budget", "1%", "--task", "sentimnt", "--runs", tmp_path / "runs"
        )

    def test_show_of_nothing(self, tmp_path, capsys):
        assert "No such file" in refused(capsys, "show", tmp_path / "none.yaml")
        assert "no best.yaml" in refused(capsys, "show", tmp_path)
        (tmp_path / "x.yaml").write_text("format: peftsearch-best/1\n")
        assert "damaged" in refused(capsys, "show", tmp_path / "x.yaml")
        (tmp_path / "y.yaml").write_text("a: 1\n")
        assert "is not the best.yaml" in refused(capsys, "show", tmp_path / "y.yaml")


class TestBadStudies:
    @pytest.fixture
    def copied(self, place, finished, tmp_path):
        """A copy of the finished run, and the command that belongs to it."""
        _, model, files = place
        shutil.copytree(finished, tmp_path / "runs" / "r")
        return tmp_path / "runs" / "r", lambda *more: arguments(model, files, tmp_path / "runs", *more)

    def test_other_settings(self, copied, capsys):
        folder, command = copied
        before = (folder / "settings.yaml").read_bytes()
        line = refused(capsys, *command("--budget", "30%"))
        assert "belongs to other settings: budget is '20%' there and '30%' here" in line
        assert "seed is 0 there and 1 here" in refused(capsys, *command("--seed", "1"))
        assert (folder / "settings.yaml").read_bytes() == before

    @pytest.mark.parametrize("damage", [b"this is no database", b""])
    def test_a_damaged_database(self, copied, capsys, damage):
        folder, command = copied
        database = folder / "study.db"
        if damage:
            database.write_bytes(damage)
        else:
            content = bytearray(database.read_bytes())
            content[4096 : 4096 * 8] = b"\xff" * 4096 * 7
            database.write_bytes(content)
        before = database.read_bytes()
        assert "storage cannot be used" in refused(capsys, *command())
        assert database.read_bytes() == before

    def test_damaged_settings(self, copied, capsys):
        folder, command = copied
        (folder / "settings.yaml").write_text("{")
        assert "damaged" in refused(capsys, *command())

    def test_a_folder_of_something_else(self, args, tmp_path, capsys):
        (tmp_path / "runs" / "r").mkdir(parents=True)
        (tmp_path / "runs" / "r" / "precious.txt").write_text("x")
        assert "is not empty and holds no study" in refused(capsys, *args())
        assert [p.name for p in (tmp_path / "runs" / "r").iterdir()] == ["precious.txt"]

    def test_a_file_in_the_way(self, args, tmp_path, capsys):
        (tmp_path / "runs").write_text("x")
        assert "runs" in refused(capsys, *args())

    def test_a_folder_in_use(self, copied, capsys):
        from filelock import FileLock

        folder, command = copied
        with FileLock(folder / ".lock"):
            assert "another process is running this study" in refused(capsys, *command())

    def test_a_locked_database_is_said(self, place, finished, tmp_path, capsys, monkeypatch):
        """A disk fault in mid-search: one line, exit 2, and what is stored stays."""
        _, model, files = place
        monkeypatch.setattr("peftsearch.study._open_storage", _broken_storage)
        assert "disk is full" in refused(capsys, *arguments(model, files, tmp_path / "runs"))

    def test_a_full_disk_while_a_state_is_saved(self, args, tmp_path, capsys, monkeypatch):
        def full(model, path):
            raise OSError(28, os.strerror(28), str(path))

        monkeypatch.setattr("peftsearch.engines.local.save_state", full)
        assert call(*args()) == 2
        assert "No space left on device" in capsys.readouterr().err
        n_done = len([s for s in story(tmp_path / "runs" / "r") if s[-1] == TrialState.COMPLETE])
        monkeypatch.undo()
        assert call(*args("--resume")) == 0
        assert len([s for s in story(tmp_path / "runs" / "r") if s[-1] == TrialState.COMPLETE]) == n_done

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_folder(self, args, tmp_path, capsys):
        (tmp_path / "runs").mkdir(mode=0o500)
        assert "Permission denied" in refused(capsys, *args())


def _broken_storage(url):
    raise sqlite_full()


def sqlite_full():
    import sqlalchemy.exc

    return sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))


def test_the_model_is_the_same_after_a_search(place, finished):
    """The folder of the model is only read."""
    _, model, _ = place
    best = yaml.safe_load((finished / "best.yaml").read_text())
    from peftsearch.backbone import load_backbone

    loaded = load_backbone(str(model), num_labels=2)
    assert loaded.backbone.revision == best["model"]["revision"]
    assert Path(model).is_dir()
