"""What `peftsearch run` refuses: one line, exit code 2, and nothing changed on disk."""

import json
import os
import shutil
import sqlite3

import pytest

from tests.runs import BRIEF, QUICK, arguments, call, refused, story


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
            (["--storage", "mysql://nobody@localhost/x"], "needs the driver of its database"),
            (["--storage", "sqlite:////no/such/folder/x.db"], "storage cannot be used"),
            (["--space", "peftsearch.design.space:SearchSpace"], "is a class"),
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
            (["--objective", "score,latencyy"], "did you mean 'latency'"),
            (["--objective", "params"], "lacks the score.*--objective score,params"),
            (["--objective", "score,params,params"], "names 'params' twice"),
            (["--max-memory", "8"], "the unit is missing"),
            (["--max-latency-overhead", "0.1"], r"did you mean 10% or 0\.1%"),
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
        line = refused(capsys, "run", "--budget", "1%", "--trials", "many")
        assert "--trials" in line
        assert "'many'" in line or '"many"' in line
        assert "Did you mean --budget?" in refused(capsys, "run", "--bugdet", "1%")

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
        assert "was created with other settings: budget is '20%' there and '30%' here" in line
        assert "seed is 0 there and 1 here" in refused(capsys, *command("--seed", "1"))
        assert (folder / "settings.yaml").read_bytes() == before

    @pytest.mark.parametrize("damage", [b"this is no database", b""])
    def test_a_damaged_database(self, copied, capsys, damage):
        folder, command = copied
        (folder / "best.yaml").unlink()  # a finished run shows its result without its database
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
        (folder / "best.yaml").unlink()
        with FileLock(folder / ".lock"):
            assert "another process is running this study" in refused(capsys, *command())

    def test_a_locked_database_is_said(self, place, finished, tmp_path, capsys, monkeypatch):
        """A disk fault in mid-search: one line, exit 2, and what is stored stays."""
        _, model, files = place
        monkeypatch.setattr("peftsearch.study.folder.open_storage", _broken_storage)
        assert "disk is full" in refused(capsys, *arguments(model, files, tmp_path / "runs"))

    def test_a_full_disk_while_a_state_is_saved(self, args, tmp_path, capsys, monkeypatch):
        def full(packed, path):
            raise OSError(28, os.strerror(28), str(path))

        monkeypatch.setattr("peftsearch.searcher.runner.write_state", full)
        brief = args("--strategy", QUICK, *BRIEF)  # the first state is that of a confirmation
        assert call(*brief) == 2
        assert "No space left on device" in capsys.readouterr().err
        search = story(tmp_path / "runs" / "r")
        assert not story(tmp_path / "runs" / "r", "confirm")
        monkeypatch.undo()
        assert call(*brief, "--resume") == 0
        assert story(tmp_path / "runs" / "r") == search
        assert story(tmp_path / "runs" / "r", "confirm")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_folder(self, args, tmp_path, capsys):
        (tmp_path / "runs").mkdir(mode=0o500)
        assert "Permission denied" in refused(capsys, *args())


@pytest.mark.parametrize("more", [("--trials", "50"), ("--device", "cpu"), ("--learning-rate", "0.1")])
def test_options_that_a_resumed_study_would_pass_over(tmp_path, capsys, more):
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "settings.yaml").write_text("options: {budget: 1%}\n")
    said = refused(capsys, "run", "--resume", "--runs", tmp_path, "--name", "r", *more)
    assert f"{more[0]} with --resume and no --budget" in said


def test_the_number_of_designs_is_a_number(capsys):
    assert call("list", "spaces", "--json") == 0
    assert {s["name"]: s["designs"] for s in json.loads(capsys.readouterr().out)}["autopeft"] == 4095 * (9**3 - 1)
    assert call("list", "spaces") == 0
    assert "2,981,160" in capsys.readouterr().out


def _broken_storage(url):
    raise sqlite_full()


def sqlite_full():
    import sqlalchemy.exc

    return sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
