"""The list of runs: finished, unfinished and damaged ones, read without a model."""

import json
import shutil

from tests.runs import call, refused


def test_runs_of_every_state_are_listed_newest_last(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "whole")
    shutil.copytree(finished, tmp_path / "stopped")
    (tmp_path / "stopped" / "best.yaml").unlink()
    shutil.copytree(finished, tmp_path / "broken")
    (tmp_path / "broken" / "best.yaml").write_text("name: x\n")
    (tmp_path / "no run").mkdir()
    assert call("runs", tmp_path, "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "whole": "finished", "stopped": "not finished", "broken": "damaged",
    }  # fmt: skip
    assert rows["whole"]["verdict"]
    assert rows["whole"]["budget"] == rows["stopped"]["budget"] == "20%"
    assert 0 < rows["whole"]["score"] <= 1
    assert call("runs", tmp_path) == 0
    assert "not finished" in capsys.readouterr().out


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert "holds no runs" in refused(capsys, "runs", str(tmp_path))


def test_a_folder_of_runs_is_no_run(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "one")
    for command in ("show", "export"):
        more = ("--format", "peftsearch", "--output", tmp_path / "x") if command == "export" else ()
        assert "is a folder of runs; `peftsearch runs" in refused(capsys, command, tmp_path, *more)
