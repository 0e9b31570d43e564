"""Finished runs beside each other, with the differences of their picks."""

import json
import shutil
from statistics import stdev

import pytest
import yaml

from tests.runs import call, refused


def copy_of(run, folder, change):
    shutil.copytree(run, folder)
    best = yaml.safe_load((folder / "best.yaml").read_text())
    change(best)
    (folder / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False))
    return folder


def test_the_difference_is_that_of_the_means_with_its_standard_error(finished, tmp_path, capsys):
    def change(best):
        best["scores"]["test"]["values"] = [0.75, 0.25]

    other = copy_of(finished, tmp_path / "other", change)
    assert call("compare", finished, other, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    own = yaml.safe_load((finished / "best.yaml").read_text())["scores"]["test"]["values"]
    difference = found["differences"][0]
    assert difference["difference"] == pytest.approx(sum(own) / len(own) - 0.5)
    error = (stdev(own) ** 2 / len(own) + stdev([0.75, 0.25]) ** 2 / 2) ** 0.5
    assert difference["standard_error"] == pytest.approx(error)
    assert [row["run"] for row in found["runs"]] == [str(finished), str(other)]


def test_scores_on_other_data_are_not_subtracted(finished, tmp_path, capsys):
    other = copy_of(finished, tmp_path / "other", lambda best: best["task"].update(fingerprint="0"))
    assert call("compare", finished, other) == 0
    assert "cannot be compared" in capsys.readouterr().out
    assert "two runs or more" in refused(capsys, "compare", finished)
