"""The support table: its content, its copy in docs/support.md, and refusals before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.errors import MethodError
from peftsearch.methods import METHODS
from peftsearch.methods.support import find_obstacle, require_methods
from tests.runs import arguments, refused, save_task
from tests.support import BEGIN, END, PAGE, render, replaced, support
from tests.tiny import FAMILIES, outline

OWN_ATTENTION = "does not use transformers' AttentionInterface"


@pytest.mark.parametrize(
    ("method", "family", "expected"),
    [
        ("lora", "bloom", "yes"),
        ("bitfit", "llama", "has no biases"),
        ("bitfit", "qwen2", "yes"),
        ("prefix", "albert", "yes"),
        ("prefix", "deberta-v2", OWN_ATTENTION),
    ],
)
def test_a_pair_is_yes_or_its_reason(method: str, family: str, expected: str) -> None:
    assert support(method, family) == expected


def test_every_pair_is_in_the_table() -> None:
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in render().splitlines() if line.startswith("| ")}
    for method in METHODS:
        refusing = {family for family in FAMILIES if support(method, family) != "yes"}
        acts = lines[method].split(" | ")[1]
        assert acts == (f"{len(FAMILIES) - len(refusing)} of {len(FAMILIES)}" if refusing else "all")
        named = lines[method].split(" | ")[2].removesuffix(" |").replace(": ", "; ").replace(", ", "; ").split("; ")
        assert refusing == {name for name in named if name in FAMILIES}


def test_the_page_holds_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert replaced(text) == text, "run python -m tests.support to rewrite the table"


def test_a_page_without_marks_is_refused() -> None:
    for text in ("no table", f"{BEGIN} without its end", f"{BEGIN}{END}{BEGIN}{END}"):
        with pytest.raises(ValueError, match="once each"):
            replaced(text)


def test_a_refusal_names_method_model_family_reason_and_what_to_do() -> None:
    backbone = outline("deberta-v2")
    assert find_obstacle("lora", backbone) is None
    require_methods(["lora", "bitfit"], backbone)
    with pytest.raises(MethodError, match=rf"prefix cannot act on deberta-v2 \(deberta-v2\): .* {OWN_ATTENTION}; use "):
        require_methods(["lora", "prefix"], backbone)
    with pytest.raises(MethodError, match="did you mean 'lora'"):
        find_obstacle("lorra", backbone)


def no_tables(folder: Path) -> tuple[Path, Path]:
    """Files that are there and cannot be read as tables: an error that names them shows that the data was read."""
    files = folder / "train.csv", folder / "validation.csv"
    for file in files:
        file.write_bytes(b"\x00\xff")
    return files


class TestBeforeAnythingIsLoaded:
    """Of the model there is a `config.json` and nothing else, so that loading it would say something else."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        FAMILIES["deberta-v2"]().config.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    def test_train(self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        train, validation = save_task(tmp_path)
        line = refused(
            capsys, "train", "--method", "prefix", "--budget", "5%", "--model", str(model), "--train", str(train),
            "--validation", str(validation), "--output", str(tmp_path / "out"), "--device", "cpu",
        )  # fmt: skip
        assert "prefix cannot act on" in line
        assert OWN_ATTENTION in line
        assert not (tmp_path / "out").exists()

    def test_run_with_a_space(self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "own.yaml").write_text("groups: 2\nmethods: [prefix]\nallocations: [uniform]\n")
        files = no_tables(tmp_path)
        more = ("--space", str(tmp_path / "own.yaml"))
        line = refused(capsys, *arguments(model, files, tmp_path / "runs", *more))
        assert "prefix cannot act on" in line
        assert OWN_ATTENTION in line
        assert not (tmp_path / "runs").exists()

    def test_run_on_fewer_blocks_than_groups(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """ALBERT's twelve layers are one block."""
        FAMILIES["albert"]().config.save_pretrained(tmp_path / "model")
        files = no_tables(tmp_path)
        line = refused(capsys, *arguments(tmp_path / "model", files, tmp_path / "runs", "--space", "s4"))
        assert "4 groups need at least 4 blocks and the backbone has 1" in line
        assert "--space uniform" in line
