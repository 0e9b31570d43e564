"""A finished run goes on with larger numbers: what was trained stays, and is not trained again."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter

import pytest
import yaml
from optuna.trial import TrialState

from tests.runs import QUICK, arguments, call, refused, story, study


@pytest.fixture(scope="module")
def ended(place, tmp_path_factory):
    """A finished run."""
    _, model, files = place
    runs = tmp_path_factory.mktemp("extend")
    argv = arguments(model, files, runs, "--strategy", QUICK)
    assert call(*argv, "--trials", "3", "--confirm-baselines", "1") == 0
    return runs / "r"


@pytest.fixture
def copied(ended, tmp_path):
    """A copy of the run, under the name that its command gave it."""
    shutil.copytree(ended, tmp_path / "r")
    return tmp_path / "r"


def trainings(folder):
    """What was trained to its end: study, name, seed, steps."""
    return Counter(
        (which, t.user_attrs["name"], t.user_attrs["seed"], t.user_attrs["steps"], t.user_attrs.get("kind"))
        for which in ("search", "confirm")
        for t in study(folder, which).trials
        if t.state == TrialState.COMPLETE
    )


def extended(folder, *words):
    """Extend the run, check that nothing was lost or trained twice, and return what is new."""
    before, values = trainings(folder), story(folder)
    assert call("extend", str(folder), *words) == 0
    after = trainings(folder)
    assert set(after.values()) == {1}
    assert not before - after
    assert story(folder)[: len(values)] == values
    return after - before


def test_more_trials_are_new_and_the_confirmed_stay_candidates(copied):
    confirmed = {t.user_attrs["name"] for t in study(copied, "confirm").trials}
    new = extended(copied, "--trials", "5")
    assert {name for which, name, *_ in new if which == "search"} == {"trial 4", "trial 5"}
    rows = yaml.safe_load((copied / "best.yaml").read_text())["comparison"]
    assert confirmed <= {row["name"] for row in rows if row["validation"]}


@pytest.mark.slow
def test_more_baselines_are_confirmed_with_the_same_seeds(copied):
    seeds = {t.user_attrs["seed"] for t in study(copied, "confirm").trials}
    new = extended(copied, "--confirm-baselines", "2")
    assert len({name for which, name, *_ in new if which == "confirm"}) == 1
    assert {seed for which, _, seed, *_ in new if which == "confirm"} == seeds


def test_a_longer_confirmation_leaves_the_search_alone_and_counts_alone(copied):
    new = extended(copied, "--steps", "9")
    assert {(which, steps) for which, _, _, steps, _ in new} == {("confirm", 9)}
    best = yaml.safe_load((copied / "best.yaml").read_text())
    assert best["training"]["steps"] == 9
    n_seeds = {len(row["validation"]["values"]) for row in best["comparison"] if row["validation"]}
    assert n_seeds == {2}
    # A rerun without numbers goes by those of the extension.
    assert call("run", "--resume", "--runs", str(copied.parent), "--name", "r") == 0
    assert not trainings(copied) - (new + trainings(copied))


@pytest.mark.slow
def test_the_command_that_the_verdict_names_works(copied):
    words = yaml.safe_load((copied / "best.yaml").read_text())["verdict"]["extend"]
    assert words
    assert extended(copied, *shlex.split(words))


@pytest.mark.slow
def test_time_alone_brings_trials(copied):
    new = extended(copied, "--time", "30s")
    assert any(which == "search" for which, *_ in new)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "2"], "--seeds 2: the study has 2 already; give a larger number"),
        (["--trials", "3", "--steps", "30"], "--trials 3: the study has 3 already"),
        (["--time", "soon"], "is not a time"),
        ([], "extend needs what to extend"),
    ],
)
def test_what_is_no_extension_is_refused_and_changes_nothing(copied, capsys, words, told):
    before = (copied / "settings.yaml").read_bytes()
    assert told in refused(capsys, "extend", str(copied), *words)
    assert (copied / "settings.yaml").read_bytes() == before


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert "holds no study" in refused(capsys, "extend", str(tmp_path / "nope"), "--trials", "9")


def test_an_interrupted_extension_goes_on_and_the_first_command_shows_what_it_came_to(
    copied, place, capsys, monkeypatch
):
    _, model, files = place
    command = [
        *arguments(model, files, copied.parent, "--strategy", QUICK),
        "--trials",
        "3",
        "--confirm-baselines",
        "1",
    ]
    monkeypatch.setattr(
        "peftsearch.searcher.finished._may_have_changed", lambda options: False
    )  # its strategy is a file
    from peftsearch.searcher import run

    with monkeypatch.context() as patch:
        patch.setattr(run, "conclude", interrupt)
        assert call("extend", str(copied), "--trials", "4") == 130
    assert not (copied / "best.yaml").exists(), "what it says does not hold for the settings"
    assert (copied / "best-before.yaml").exists()
    capsys.readouterr()
    assert call("extend", str(copied), "--trials", "4") == 0
    assert not (copied / "best-before.yaml").exists()
    statement = yaml.safe_load((copied / "best.yaml").read_text())["verdict"]["statement"]
    capsys.readouterr()
    before = trainings(copied)
    assert call(*command) == 0
    assert statement in capsys.readouterr().out
    assert trainings(copied) == before
    assert "has 4 already" in refused(capsys, "extend", str(copied), "--trials", "4")


def interrupt(*args):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_whose_time_is_up_goes_on_without_one(place, tmp_path):
    """Its own time, which is over, does not end the confirmation of an extension."""
    _, model, files = place
    argv = arguments(model, files, tmp_path, "--space", "hybrid", "--strategy", "race", "--time", "20s")
    drop = {"--steps", "--search-steps", "--trials", "--seeds"}
    words = [w for i, w in enumerate(argv) if w not in drop and (i == 0 or argv[i - 1] not in drop)]
    assert call(*words, "--workers", "1") == 0
    settings = tmp_path / "r" / "settings.yaml"
    text = settings.read_text()
    assert "time: 20s" in text
    settings.write_text(text.replace("time: 20s", "time: 5s"))  # as if it had been slower than planned
    best = yaml.safe_load((tmp_path / "r" / "best.yaml").read_text())
    n = max(len(row["validation"]["values"]) for row in best["comparison"] if row["validation"])
    if best["verdict"]["kind"] == "tie":
        new = extended(tmp_path / "r", "--seeds", str(n + 20))
        assert new
