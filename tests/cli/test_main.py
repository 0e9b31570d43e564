"""The command line as a whole: what it imports, what it says of slips, and its exit codes."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from peftsearch.cli.main import COMMANDS, main
from tests.runs import refused

LIGHT = [
    line.split()
    for line in """
list spaces
list strategies
list methods
list tasks
list objectives
advise --examples 50
show nope
report nope
pareto nope
worker nope
run
run --resume
run --bugdet 1%
run --budget none
run --budget 1% --engine nope
run --budget 1% --engine ray --ray-address nope
run --budget 1% --strategy nope
run --budget 1% --space nope
run --budget 1% --objective nope
run --budget 1% --quantize nope
run --budget 1% --task nope
run --budget 1% --train nope.csv
run --budget 1% --metric acuracy
run --budget 1% --label-column x
run --budget 1% --anatomy nope.yaml
run --budget 1% --storage nope
run --budget 1% --device nope
run --budget 1% --dtype nope
run --budget 1% --model ./nope
pareto --budgets 1%,nope
pareto --budgets -1%
pareto --budgets 1%,2% --task nope
train nope --output o
train --method lroa --output o
train --method full --output o --train nope.csv
train --method full --output o --dtype nope
train --method full --output o --model ./nope
evaluate nope
predict nope --input a.csv --output b.csv
export nope --format peft --output o
list methods --model ./nope
advise --examples 50 --model ./nope
estimate
estimate nope
estimate --budget 1% --dtype nope
estimate --budget 1% --model ./nope
subspace --output o --steps 0
subspace --output o --tasks nope
run --budget 1% --subspace nope
""".strip().splitlines()
]
"""Commands that need no model: catalogues, and every fault that the options alone show."""


def test_light_work_imports_neither_torch_nor_transformers(tmp_path):
    code = (
        "import json, sys; from peftsearch.cli.main import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    status = main(words)\n"
        "    heavy = [m for m in ('torch', 'transformers') if m in sys.modules]\n"
        "    fine = words[0] in ('list', 'advise') and './nope' not in words\n"
        "    if heavy or status != (0 if fine else 2): sys.exit(f'{words}: {status} {heavy}')"
    )
    argv = [sys.executable, "-c", code, json.dumps(LIGHT)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_the_name_shows_the_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    assert main([command, "--help"]) == 0
    assert f"Usage: peftsearch {command}" in capsys.readouterr().out


def test_every_option_of_a_run_has_a_help_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["run", "--help"]) == 0
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines() if line.startswith("│ --")]
    assert len(lines) > 40
    assert [line for line in lines if len(line.split("  ", 1)) < 2] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], 'Did you mean "run"?'),
        (["run", "--bugdet", "1%"], "Did you mean --budget?"),
        (["run", "--budget", "-1%"], "must be above zero"),
        (["list", "spases"], 'Choose from: "spaces"'),
        (["train"], "--output"),
    ],
)
def test_slips_are_one_line(capsys, words, said):
    assert said in refused(capsys, *words)


def test_debug_shows_the_traceback():
    from peftsearch.errors import BudgetError

    with pytest.raises(BudgetError):
        main(["run", "--budget", "none", "--debug"])


def test_a_password_in_a_mistyped_url_is_not_repeated(capsys):
    line = refused(capsys, "run", "--budget", "1%", "--storage", "postgresql//bob:s3cret@host/db")
    assert "s3cret" not in line
    assert "@host/db' is not a storage URL" in line


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://bob:s3cret@host:5432x/db", "is not a storage URL"),
        ("postgresql//bob:s3cret/host", "is not a storage URL"),
        ("sqlite://bob:s3cret@/nowhere.db", "other settings"),
    ],
)
def test_no_command_repeats_a_password(finished, capsys, url, told):
    line = refused(capsys, "worker", finished, "--storage", url)
    assert "s3cret" not in line
    assert told in line


@pytest.mark.parametrize(("output", "status"), [(">&-", 0), ("> /dev/full", 1)])
def test_an_output_that_takes_nothing_is_no_defect(finished, output, status):
    command = f"{shlex.quote(sys.executable)} -m peftsearch show {shlex.quote(str(finished))} {output}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


def test_signs_that_a_stream_cannot_take_do_not_end_a_command(finished):
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "peftsearch", "show", str(finished)]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0
    assert b"best.yaml" in done.stdout
