"""A tiny pretrained model with a tokenizer, a tiny task in files, and the command line in and out of process."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from peftsearch.cli.main import app, main
from tests.tiny import FAMILIES

WORDS = [
    "good",
    "great",
    "fine",
    "lovely",
    "bad",
    "awful",
    "poor",
    "sad",
    "the",
    "a",
    "film",
    "book",
    "song",
    "was",
    "is",
    "and",
    "not",
    "very",
    "plot",
    "actor",
    "scene",
    "it",
    "ending",
    "music",
    "long",
    "short",
    "blue",
    "red",
    "green",
    "old",
    "new",
]
POSITIVE, NEGATIVE = WORDS[:4], WORDS[4:8]


def save_model(path: Path, family: str = "bert") -> Path:
    """A tiny random model of a family (99 tokens) with a word tokenizer for `WORDS`."""
    FAMILIES[family]().save_pretrained(path)
    return save_tokenizer(path)


def save_tokenizer(path: Path) -> Path:
    """The word tokenizer of `save_model` alone."""
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    words = [*specials, *WORDS, *(f"w{i}" for i in range(99 - len(specials) - len(WORDS)))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(path)
    return path


def save_task(folder: Path, n_train: int = 96, n_validation: int = 64, seed: int = 0) -> tuple[Path, Path]:
    """Sentences with one telling word, in two CSV files; no text is in both."""
    rng, seen, rows = random.Random(seed), set(), []
    while len(rows) < n_train + n_validation:
        label = rng.choice(["negative", "positive"])
        words = [rng.choice(WORDS[8:]) for _ in range(rng.randint(3, 8))]
        words.insert(rng.randrange(len(words)), rng.choice(POSITIVE if label == "positive" else NEGATIVE))
        if (text := " ".join(words)) not in seen:
            seen.add(text)
            rows.append(f"{text},{label}\n")
    paths = folder / "train.csv", folder / "validation.csv"
    paths[0].write_text("text,label\n" + "".join(rows[:n_train]))
    paths[1].write_text("text,label\n" + "".join(rows[n_train:]))
    return paths


BRIEF = ("--trials", "2", "--steps", "2", "--search-steps", "1", "--seeds", "1")
"""Options of a run whose scores do not matter."""


QUICK = str(Path(__file__).with_name("quick.yaml"))
"""A strategy that trains as little as possible."""


def arguments(model: Path, files: tuple[Path, Path], runs: Path, *more: str) -> list[str]:
    """`peftsearch run` on the tiny model and task, with S4's space and strategy unless others are given."""
    usual = [word for pair in (("--space", "s4"), ("--strategy", "s4")) if pair[0] not in more for word in pair]
    return [
        "run", "--budget", "20%", "--model", str(model), "--train", str(files[0]), "--validation", str(files[1]),
        "--trials", "14", "--steps", "6", "--search-steps", "3", "--seeds", "2", "--batch-size", "16",
        "--runs", str(runs), "--name", "r", "--device", "cpu", "--dtype", "fp32", *usual, *more,
    ]  # fmt: skip


def call(*argv: str) -> int:
    """Run the command line in this process."""
    return main(list(map(str, argv)))


def start(argv: list[str]) -> subprocess.Popen:
    """Run the command line in a process of its own, in its own group."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "peftsearch", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def kill_after(process: subprocess.Popen, marker: str, delay_s: float = 0.0) -> list[str]:
    """Read lines until one holds the marker, wait, and kill -9; returns the lines read."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if marker in line:
            time.sleep(delay_s)
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    process.wait()
    return lines


def study(folder, which="search"):
    return optuna.load_study(study_name=which, storage=f"sqlite:///{folder / 'study.db'}")


def story(folder, which="search"):
    """What was tried and what came of it, interrupted trials apart."""
    return [
        (t.user_attrs["name"] if which == "confirm" else t.user_attrs.get("baseline"), t.user_attrs.get("design"),
         t.user_attrs.get("seed"), t.value, t.state)
        for t in study(folder, which).trials
        if t.state.is_finished() and not t.user_attrs.get("interrupted")
    ]  # fmt: skip


def refused(capsys, *argv):
    """Run a command that must be refused; returns its one line."""
    assert call(*argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def options_of(words):
    """The options that the command line makes of some words."""
    _, bound, _ = app().parse_args(words, exit_on_error=False, print_error=False)
    return bound.arguments["options"]
