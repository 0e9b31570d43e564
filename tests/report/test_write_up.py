"""`peftsearch report` on runs built by hand."""

import hashlib
import random
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from statistics import mean, stdev

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from peftsearch.cli.main import main
from peftsearch.errors import StudyError
from peftsearch.files import to_plain
from peftsearch.report.front import non_dominated
from peftsearch.report.importance import importances
from peftsearch.report.provenance import command
from peftsearch.report.write_up import write_up
from peftsearch.searcher.options import NOT_STORED
from peftsearch.study.record import read_record
from peftsearch.study.settings import StudySettings
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind
from tests.report.conftest import IMAGE, SCRIPT, TASKS
from tests.runs import options_of
from tests.studies import made_up_trials, read_best, write_study


def refused(capsys, *argv):
    """The one line with which a command refuses."""
    assert main(list(map(str, argv))) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def copy_with_number(trial, number):
    trial.number = number
    return trial


def shown(text):
    """What a reader sees, without plotly.js."""
    return unescape(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))


def test_a_run_is_read_without_a_change_and_without_torch(finished):
    before = digests(finished)
    code = (
        "import sys; from peftsearch.cli.main import main; main(['report', *sys.argv[1:]]); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    page = finished.parent / "page.html"
    argv = [sys.executable, "-c", code, str(finished), "--output", str(page)]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[0] == f"{page}: {page.stat().st_size / 1e6:.1f} MB, opens in any browser, offline too"
    assert out[1] == "[]"
    assert digests(finished) == before


def test_the_page_says_what_was_found(finished):
    text, best = shown(write_up(read_record(finished))), read_best(finished)
    assert best["verdict"]["statement"] in text
    assert best["verdict"]["settle"] in text
    scores = best["scores"]["validation"]
    assert f"{scores['mean']:.4f} ± {scores['std']:.4f} (standard deviation), n = 3 seeds" in text
    assert f"{best['architecture']['n_params']:,} trainable parameters" in text
    assert SCRIPT in text
    assert IMAGE in text
    for name in ("Decisions of the stages", "Which choices mattered", "Task by task", *TASKS):
        assert name in text
    assert "Not compared: methods.G2: adapter (the group is not tuned)" in text
    assert "2.13.0" in text


def test_every_placement_of_the_pick_is_drawn(finished):
    text, architecture = write_up(read_record(finished)), read_best(finished)["architecture"]
    placed = [(m, f) for block in architecture["blocks"] for m, f in block["methods"].items()]
    titles = re.findall(r"<title>([^<]*parameters)</title><rect [^>]*width=\"([\d.]+)\" height=\"([\d.]+)\"", text)
    wanted = [f"{m} {f['label']}: {f['n_params']:,} parameters" for m, f in placed]
    assert sorted(t for t, _, _ in titles) == sorted(wanted * 2)  # one picture for wide pages and one for phones
    per_parameter = [float(w) * float(h) / int(t.split(": ")[1].split()[0].replace(",", "")) for t, w, h in titles]
    assert max(per_parameter) == pytest.approx(min(per_parameter), rel=0.02)  # area stands for parameters


def test_means_and_spreads_are_those_of_the_study(finished):
    storage = f"sqlite:///{finished / 'study.db'}"
    stored = optuna.load_study(study_name="confirm", storage=storage)
    designs = read_record(finished).confirmed()
    assert len(designs) == 4
    assert [c.baseline for c in designs].count(True) == 2
    text = write_up(read_record(finished))
    for c in designs:
        values = [t.value for t in stored.trials if t.user_attrs["name"] == c.name]
        assert sorted(c.validation.values) == sorted(values)
        assert f'data-value="{mean(c.validation.values)!r}"' in text
        assert f'data-value="{stdev(c.validation.values)!r}"' in text
    assert all(c.test.values for c in designs)


def test_trials_without_a_score_keep_their_reason(finished):
    record = read_record(finished)
    text = shown(write_up(record))
    states = [t.state for t in record.search]
    assert (states.count("failed"), states.count("infeasible"), states.count("pruned")) == (3, 2, 2)
    said = "3 failed; 2 did not fit the budget or tuned nothing; 2 stopped by the pruner"
    assert f"Of {len(record.search) + len(record.confirm)} trials: {said}." in text
    assert "Diverged: the loss became nan at step 17" in text
    assert all(t.score is None for t in record.search if t.state != "complete")


def test_an_unfinished_run_says_so(unfinished, capsys):
    assert main(["report", str(unfinished)]) == 0
    assert str(unfinished / "report.html") in capsys.readouterr().out
    text = shown((unfinished / "report.html").read_text())
    assert "This run is not finished" in text
    assert "No design is confirmed yet" in text
    assert "at least 20 are needed" in text
    assert "Decisions of the stages" not in text
    assert "<select>" not in text  # the parameters are all that is measured


def test_several_objectives(multi):
    record = read_record(multi)
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{multi / 'study.db'}")
    for trial, own in zip(stored.trials, record.search, strict=True):
        assert own.score == (trial.values[1] if trial.values else None)
    text = shown(write_up(record))
    assert "The search optimised params, score together." in text
    assert "objective params" in text


def test_the_front_is_optunas(multi):
    """Optuna's own `best_trials` over score and parameters."""
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{multi / 'study.db'}")
    own = non_dominated(read_record(multi).scored, "params")
    assert {t.number for t in own} == {t.number for t in stored.best_trials}


def test_importance_finds_what_the_scores_depend_on():
    """The made-up scores depend on the tuned groups and the methods of G4 alone."""
    made = enumerate(made_up_trials(200, random.Random(3)))
    records = [TrialRecord.of(copy_with_number(t, i), Kind.SEARCH) for i, t in made]
    trials = [t for t in records if t.score is not None and t.kind == "search"]
    found = importances(trials, seed=0)
    assert {i.name for i in found[:2]} == {"tunable", "methods.G4"}
    assert all(i.value > i.chance for i in found[:2])
    assert found == importances(trials, seed=0)


def test_choices_of_groups_that_are_not_tuned_are_left_out():
    records = [TrialRecord.of(t, Kind.SEARCH) for t in made_up_trials(20, random.Random(0))]
    for t in records[6:]:
        tuned = {f"methods.{g}" for g in t.params["tunable"].split("+")}
        assert {name for name in t.params if name.startswith("methods.")} == tuned


def test_the_command_makes_the_options_again(finished, tmp_path):
    record = read_record(finished)
    given = options_of(shlex.split(command(record))[1:])
    assert {k: v for k, v in to_plain(given).items() if k not in NOT_STORED} == record.settings.options
    assert given.study.runs / given.study.name == finished


def test_options_with_spaces_and_flags(finished):
    record = read_record(finished)
    task = {"train": "my data/a b.csv", "label_column": "-x"}
    options = {"budget": "0.1%", "count_head": True, "task": task, "search": {"objective": "score,params"}}
    settings = replace(record.settings, options=options, storage="postgresql://me:***@host/db")
    changed = replace(record, settings=settings)
    assert shlex.split(command(changed))[2:] == [
        "--count-head", "--label-column=-x", "--train", "my data/a b.csv", "--objective", "score,params",
        "--name", finished.name, "--runs", str(finished.parent), "--storage", "postgresql://me:***@host/db",
        "--budget", "0.1%",
    ]  # fmt: skip
    assert command(replace(record, settings=StudySettings(metric="f1"))) is None


def test_a_storage_of_several_studies(unfinished, tmp_path):
    """Each study has its folder's name and id before its own."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    optuna.copy_study(
        from_study_name="search", from_storage=f"sqlite:///{unfinished / 'study.db'}", to_storage=url,
        to_study_name="unfinished-ef13b3776871/search",
    )  # fmt: skip
    optuna.create_study(study_name="other-0/search", storage=url)
    folder = tmp_path / "unfinished"
    shutil.copytree(unfinished, folder, ignore=shutil.ignore_patterns("study.db"))
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings | {"storage": url}))
    names = [t.name for t in read_record(unfinished).search]
    assert [t.name for t in read_record(folder, url).search] == names
    with pytest.raises(StudyError, match="give --storage with the run's URL"):
        read_record(folder)


def test_an_interrupted_and_a_running_trial(tmp_path):
    folder = write_study(tmp_path / "r", 3, finished=False)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    study.ask()
    dead = study.ask()
    dead.set_user_attr("interrupted", True)
    study.tell(dead, state=TrialState.FAIL)
    record = read_record(folder)
    assert [t.state for t in record.search[-2:]] == ["running", "interrupted"]
    text = shown(write_up(record))
    assert "Still open: 1 running." in text
    assert "1 left unfinished by a killed process (not counted)" in text


def test_a_write_that_a_kill_cut_short_is_taken_back(unfinished, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(unfinished, folder)
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('pragma cache_size=1'); c.execute('begin'); "
        "c.execute('update trial_params set param_value = param_value + 1'); "
        "c.execute('update trial_user_attributes set value_json = 1'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "study.db")], check=True)
    assert (folder / "study.db-journal").stat().st_size > 0
    assert [t.facts for t in read_record(folder).search] == [t.facts for t in read_record(unfinished).search]


def test_a_path_with_signs_that_a_url_has(unfinished, tmp_path):
    folder = tmp_path / "50%? #1"
    shutil.copytree(unfinished, folder)
    assert len(read_record(folder).search) == 11


def test_what_is_no_run_is_refused(capsys, tmp_path):
    assert "is not the folder of a run" in refused(capsys, "report", tmp_path / "nothing")
    assert "holds no study" in refused(capsys, "report", tmp_path)
    (tmp_path / "file").write_text("x")
    assert "is not the folder of a run" in refused(capsys, "report", tmp_path / "file")


def test_damaged_runs_are_refused(capsys, unfinished, finished, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(unfinished, folder)
    (folder / "best.yaml").write_text("name: [")
    assert "the result of the run is damaged" in refused(capsys, "report", folder)
    (folder / "best.yaml").write_text("name: trial 1\nformat: peftsearch-best/1\n")
    line = refused(capsys, "report", folder)
    assert "best.yaml: is damaged" in line
    assert "verdict: Field required; model: Field required" in line, "all faults at once"
    (folder / "study.db").write_bytes(b"this is no database" * 100)
    assert "the storage cannot be used" in refused(capsys, "report", folder)
    (folder / "study.db").unlink()
    assert "holds no study.db" in refused(capsys, "report", folder)
    assert not (folder / "study.db").exists()  # asking for a report makes none
    (folder / "settings.yaml").write_text("[")
    assert "settings of the study are damaged" in refused(capsys, "report", folder)


def test_a_study_without_trials_is_refused(capsys, unfinished, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(unfinished, folder, ignore=shutil.ignore_patterns("study.db"))
    url = f"sqlite:///{folder / 'study.db'}"
    optuna.create_study(study_name="else", storage=url)
    assert "holds no study of this run" in refused(capsys, "report", folder)
    optuna.create_study(study_name="search", storage=url)
    assert "has no trials yet" in refused(capsys, "report", folder)


def test_outputs_and_storages_that_cannot_be_used(capsys, unfinished, tmp_path):
    line = refused(capsys, "report", unfinished, "--output", tmp_path / "no" / "page.html")
    assert "No such file or directory; give another file with --output" in line
    assert "Is a directory" in refused(capsys, "report", unfinished, "--output", tmp_path)
    url = f"sqlite:///{tmp_path / 'none.db'}"
    assert "there is no such database" in refused(capsys, "report", unfinished, "--storage", url)
    assert not (tmp_path / "none.db").exists()
    assert "cannot be opened" in refused(capsys, "report", unfinished, "--storage", "nonsense")


def test_the_missing_extra_is_said_before_anything_is_read(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("peftsearch.report.page.find_spec", lambda name: None)
    assert 'pip install "peftsearch[report]"' in refused(capsys, "report", tmp_path / "nothing")
