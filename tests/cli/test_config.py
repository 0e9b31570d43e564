"""Options from a YAML file: flat, in groups, or a run's own settings; the command line holds against them."""

import pytest
import yaml

from peftsearch.cli.config import with_config
from tests.runs import BRIEF, call, options_of, refused


def test_a_file_gives_options_and_the_command_line_overrides_them(tmp_path):
    content = {"budget": "1%", "search": {"trials": 3, "search_steps": 5}, "count-head": True, "seed": 4, "dtype": None}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    options = options_of(with_config(["run", "--config", str(tmp_path / "run.yaml"), "--trials", "7"]))
    assert (options.budget, options.search.trials, options.search.search_steps) == ("1%", 7, 5)
    assert (options.count_head, options.seed, options.machine.dtype) == (True, 4, None)


def test_the_settings_of_a_run_are_such_a_file(finished, tmp_path):
    options = options_of(with_config(["run", f"--config={finished / 'settings.yaml'}", "--seed", "9"]))
    stored = yaml.safe_load((finished / "settings.yaml").read_text())["options"]
    assert (options.budget, options.search.steps, options.seed) == (stored["budget"], stored["search"]["steps"], 9)
    assert str(options.task.train) == stored["task"]["train"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("bugdet: 1%", "Unknown option: --bugdet"),
        ("budget: [{a: 1}]\ntrials: {trials: 2, search: {trials: 3}}", "'trials' stands twice"),
        ("config: other.yaml", "cannot name another one"),
        ("- budget", "mapping"),
        ("budget: !!python/object/apply:os.system [true]", "run.yaml"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, capsys, content, told):
    (tmp_path / "run.yaml").write_text(content)
    assert told in refused(capsys, "run", "--config", str(tmp_path / "run.yaml"))
    assert "needs a YAML file" in refused(capsys, "run", "--config")
    assert "needs a command before it" in refused(capsys, "--config", str(tmp_path / "run.yaml"))


def test_a_dry_run_keeps_nothing(place, tmp_path, capsys):
    _, model, (train, validation) = place
    words = ["--model", model, "--train", train, "--validation", validation, "--budget", "20%", "--runs", tmp_path]
    assert call("run", *words, *BRIEF, "--space", "s4", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "at the peak of a training step" in told
    assert "Plan: trainings of 2 steps" in told
    assert list(tmp_path.iterdir()) == []
