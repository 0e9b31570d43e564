"""Groups of options that several commands share and compose their own options from.

Each field is an option of the command line: its name is the flag, its docstring the help text. cyclopts' `Parameter`
adds the rest: another flag, or permission for values that begin with a hyphen.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter

Asked = Literal["classification", "regression", "generation", "tagging", "multi_label", "question_answering", "image"]
"""Kinds of task that a user may choose; `image` is classification of images."""
MAX_SEED = 2**31 - 1
AUTO = "auto"
HYPHEN = Parameter(allow_leading_hyphen=True)
"""Parameter for values such as `-1%`, which are then refused with a reason instead of being parsed as an option."""


def group(title: str) -> Parameter:
    """Put the fields of an options group under a heading of the help, with flags named after the fields."""
    return Parameter(name="*", group=Group(title))


def given(options: object, *names: str) -> dict[str, Any]:
    """Return those of the named fields that are not None, by name.

    Args:
        options: A group of options.
        names: Fields to look up.
    """
    return {name: value for name in names if (value := getattr(options, name)) is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionGroup:
    """Base of all groups; unknown options are an error when options are read back from a file."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions(OptionGroup):
    """The pretrained model."""

    name: Annotated[str | None, Parameter(name="--model")] = None
    """Hub id or folder of a transformers model."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""
    trust_remote_code: bool = False
    """Run the code that comes with a hub model."""
    anatomy: Path | None = None
    """YAML file that describes the blocks of an unsupported model."""
    device_map: str | None = None
    """Spread a model that is larger than one GPU over all: auto, balanced or sequential (of accelerate)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedModelOptions(ModelOptions):
    """The pretrained model, where designs are put into it."""

    subspace: Path | None = None
    """Subspace of prompts for the method ipt, made on this model by `peftsearch subspace`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputColumns(OptionGroup):
    """Columns that a model reads; None means guess."""

    text_column: str | None = None
    """Column of the text."""
    pair_column: str | None = None
    """Column of the second text of a pair."""
    prompt_column: str | None = None
    """Column of the prompt, for generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnOptions(InputColumns):
    """Columns of a table of examples; None means guess."""

    label_column: str | None = None
    """Column of the class or the regression target."""
    completion_column: str | None = None
    """Column of the completion, for generation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOptions(ColumnOptions):
    """Data, kind and metric of a task."""

    name: Annotated[str | None, Parameter(name="--task")] = None
    """Embedded task, or a hub data set such as glue/sst2; separate several by commas."""
    train: Path | None = None
    """Training examples: CSV, TSV, JSONL or Parquet; for images a folder with one folder per class."""
    validation: Path | None = None
    """Validation examples, in the format of --train."""
    test: Path | None = None
    """Test examples, in the format of --train; scored once, at the end."""
    template: str | None = None
    r"""Template that joins prompt and completion, for generation (default: '{prompt}\n{completion}')."""
    kind: Asked | None = None
    """Kind of task (default: guess between classification and regression)."""
    metric: str | None = None
    """accuracy, f1, matthews; for regression pearson, spearman; for generation perplexity, bleu, rouge_l, exact_match,
    normalised_match, number_match; or module:function of your own, in the manner of compute_metrics."""
    positive: str | None = None
    """Class that f1 is of, with two classes (default: the rarer one in train, or the second of a data set's own)."""
    max_train: int | None = None
    """Maximum number of training examples."""
    bad_rows: Literal["error", "drop"] | None = None
    """Rows that cannot be read (no text, no label, ...): error refuses the data, drop leaves them out and tells which
    (default: error)."""


def lasting(options: TaskOptions) -> TaskOptions:
    """The options with absolute paths of files and folders, so that they find the data again from any directory."""
    names = ("train", "validation", "test")
    paths = {name: Path(path).resolve() for name in names if (path := getattr(options, name)) is not None}
    name = options.name
    if name is not None:
        parts = [part.strip() for part in name.split(",")]
        name = ",".join(str(Path(part).resolve()) if Path(part).is_dir() else part for part in parts)
    return replace(options, name=name, **paths)  # type: ignore[arg-type]  # all of them are paths


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions(OptionGroup):
    """Training settings that users may override."""

    learning_rate: float | None = None
    """Base learning rate, which each method scales (default: 0.005)."""
    head: Literal["probe", "random"] | None = None
    """Start of the task head: probe (fitted on the frozen features) or random (default: probe)."""
    head_learning_rate: float | None = None
    """Learning rate of the task head (default: 0.001; 0.01 for a random head)."""
    batch_size: int | None = None
    """Examples per optimizer step, over all processes (default: 16)."""
    max_length: int | Literal["auto"] | None = None
    """Maximum number of tokens; longer texts are cut (default: auto, which 99% of the training texts fit into)."""
    dropout: bool | None = None
    """Keep the dropout of the frozen backbone in training (default: off, which costs less)."""
    class_weights: Literal["none", "balanced"] | None = None
    """Weights of the classes in the training loss: none, or balanced by their frequencies (default: none)."""
    label_smoothing: float | None = None
    """Share of the target that is spread over all classes in the training loss (default: 0)."""
    accumulate: int | None = None
    """Parts that each process cuts its share of a batch into, to save memory (default: 1)."""
    gradient_checkpointing: bool | None = None
    """Compute blocks anew in the backward pass: saves memory, for a third more time (default: off)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodingOptions(OptionGroup):
    """How texts are written, for generation."""

    max_new_tokens: int | None = None
    """Most tokens to write (default: the longest completion of the training)."""
    temperature: float | None = None
    """Sample at this temperature instead of writing greedily."""
    beams: int = 1
    """Beams of a beam search."""
    stop: str | None = None
    r"""Text that ends a written text, such as '\n'."""
    generation_seed: int = 0
    """Seed of sampling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineOptions(OptionGroup):
    """Device, precision and threads."""

    device: str | None = None
    """cpu, cuda or cuda:1 (default: cuda if available)."""
    dtype: str | None = None
    """Precision: auto, fp32 or bf16 (default: auto)."""
    threads: int | None = None
    """CPU threads (default: the cores that are free, or OMP_NUM_THREADS)."""


def changed_options(options: object, but: Container[str] = ()) -> dict[str, Any]:
    """Return the options that differ from their defaults, by flag: `{"--max-train": 100}`.

    Args:
        options: A group of options.
        but: Flags to leave out.
    """
    out: dict[str, Any] = {}
    hints = get_type_hints(type(options), include_extras=True)
    for f in fields(options):  # type: ignore[arg-type]  # options are dataclasses
        value, flag = getattr(options, f.name), flag_of(f.name, hints[f.name])
        if is_dataclass(value):
            out |= changed_options(value, but)
        elif flag not in but and value != f.default:
            out[flag] = value
    return out


def flag_of(name: str, hint: Any) -> str:
    """Flag of a field: the one that its `Parameter` gives, or the field's own name."""
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    named = next((mark.name for mark in marks if isinstance(mark, Parameter) and mark.name), None)
    return f"--{name.replace('_', '-')}" if named is None else named if isinstance(named, str) else next(iter(named))


def command_words(options: object, but: Container[str] = ()) -> list[str]:
    """Return the options that differ from their defaults, as words of a command line."""
    words: list[str] = []
    for flag, value in changed_options(options, but).items():
        words += option_words(flag, value)
    return words


def option_words(flag: str, value: object) -> list[str]:
    """The words of one option; none for False, the default of a choice whose other default is None."""
    if value is False:
        return []
    text = str(value)
    return [flag] if value is True else [f"{flag}={text}"] if text.startswith("-") else [flag, text]
