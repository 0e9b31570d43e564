"""Trackers: what a run and a training log, and a tracker that fails on the way."""

from typing import ClassVar

import accelerate.tracking
import pytest
import yaml

from peftsearch.errors import ConfigError
from peftsearch.trainer.tracking import check_trackers, tracking
from tests.runs import QUICK, arguments, call


class Kept:
    """A tracker that keeps what it gets; it fails from the third value on if it is told to."""

    made: ClassVar[list] = []
    fails = False

    def __init__(self, name, *more, **options):
        self.config, self.logged, self.finished = {}, [], False
        Kept.made.append(self)

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step):
        if Kept.fails and len(self.logged) == 2:
            raise ConnectionError("no network\nat all")
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(Kept, "made", [])
    monkeypatch.setattr(Kept, "fails", False)
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Kept)
    monkeypatch.setattr("peftsearch.trainer.tracking.find_spec", lambda package: True)
    return Kept.made


@pytest.mark.slow
def test_a_run_logs_every_trial_and_a_training_every_validation(place, tmp_path, kept):
    _, model, files = place
    words = arguments(model, files, tmp_path, "--track", "tensorboard", "--strategy", QUICK, "--seeds", "1")
    assert call(*words) == 0
    (tracker,) = kept
    assert tracker.finished
    assert tracker.config["--budget"] == "20%"
    names = {name for _, values in tracker.logged for name in values}
    assert {"search/score", "search/loss", "confirm/score", "confirm/test_score"} <= names
    rows = yaml.safe_load((tmp_path / "r" / "best.yaml").read_text())["comparison"]
    name = next(row["name"] for row in rows if row["validation"] and row["n_params"])
    words = ["train", tmp_path / "r", "--design", name, "--output", tmp_path / "out", "--steps", "4"]
    assert call(*words, "--eval-every", "2", "--track", "tensorboard") == 0
    assert [(step, values["step"]) for step, values in kept[-1].logged] == [(1, 2), (2, 4)]
    assert set(kept[-1].logged[0][1]) == {"seed_0/loss", "seed_0/score", "step"}


def test_a_tracker_that_fails_is_told_once_and_left_out(tmp_path, kept, monkeypatch):
    monkeypatch.setattr(Kept, "fails", True)
    said = []
    with tracking(("tensorboard",), "r", tmp_path, {}, said.append) as log:
        for step in range(5):
            log({"loss": 1.0}, step)
    assert said == ["--track tensorboard: ConnectionError: no network at all; it is left out from here on"]
    assert len(kept[0].logged) == 2


def test_names_are_checked_before_anything_is_loaded(monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        check_trackers("wandbb")
    monkeypatch.setattr("peftsearch.trainer.tracking.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match="pip install mlflow"):
        check_trackers("mlflow")
