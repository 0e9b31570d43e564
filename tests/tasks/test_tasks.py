"""One door for every kind of task, and a light one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peftsearch.errors import TaskError
from peftsearch.tasks import DEFAULT_TASK, EMBEDDED, load_embedded
from tests.tasks import resolve_task

ROWS = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40))


@pytest.fixture
def train(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    path.write_text(ROWS)
    return path


def test_embedded_and_default() -> None:
    assert resolve_task().name == DEFAULT_TASK
    assert resolve_task("entailment", seed=2) == load_embedded("entailment", 2)
    assert resolve_task("acceptability", metric="matthews").majority_score == 0.0


def test_files_and_folders(train: Path) -> None:
    assert resolve_task(train=train).source == "files train=train.csv"
    assert resolve_task(str(train.parent)).source == f"folder {train.parent}"


def test_max_train(train: Path) -> None:
    whole, part = resolve_task(train=train), resolve_task(train=train, max_train=10)
    assert len(part.train) == 10
    assert part.validation == whole.validation
    assert set(part.train.texts) < set(whole.train.texts)
    assert part.fingerprint != whole.fingerprint
    assert "10 of 34 training examples are used (max_train)" in part.notes
    assert len(resolve_task(max_train=64).train) == 64
    with pytest.raises(TaskError, match="max_train is 1; it must be at least 2"):
        resolve_task(train=train, max_train=1)


def test_faults(train: Path) -> None:
    with pytest.raises(TaskError, match=r"unknown task 'sentimet'; did you mean 'sentiment'.*a file goes to --train"):
        resolve_task("sentimet")
    with pytest.raises(TaskError, match=r"train.csv': is a file; give it with --train"):
        resolve_task(str(train))
    with pytest.raises(TaskError, match="both the name 'sentiment' and the file"):
        resolve_task("sentiment", train=train)
    with pytest.raises(TaskError, match="without a training file; add --train FILE"):
        resolve_task("sentiment", validation=train)
    with pytest.raises(TaskError, match="'sentiment': is generated and takes no text_column, kind"):
        resolve_task("sentiment", text_column="a", kind="regression")
    with pytest.raises(TaskError, match="'pearson' is for regression"):
        resolve_task("sentiment", metric="pearson")


def test_every_line_has_a_description() -> None:
    assert len(EMBEDDED) >= 3
    assert all(grammar.description and "\n" not in grammar.description for grammar in EMBEDDED.values())


def test_the_import_is_light() -> None:
    heavy = "{'torch', 'datasets', 'pandas', 'sklearn', 'scipy', 'transformers', 'numpy', 'pyarrow'}"
    code = f"import sys, peftsearch.tasks; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
