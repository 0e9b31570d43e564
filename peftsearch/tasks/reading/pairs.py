"""Read generation tasks from files: prompts with completions, joined by a template.

Rows with the same prompt are one example with several references: they stay in one split, and metrics of generated
texts use all of them. In training each row is a separate example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from peftsearch.errors import TaskError, one_line
from peftsearch.options import TaskOptions
from peftsearch.tasks.metrics import choose_metric
from peftsearch.tasks.reading.build import VALIDATION_SHARE
from peftsearch.tasks.reading.chats import chat_column, chats_of, prompts_of_chats
from peftsearch.tasks.reading.columns import Columns, missing_column
from peftsearch.tasks.reading.faults import ERROR
from peftsearch.tasks.reading.inputs import is_null, read_texts
from peftsearch.tasks.reading.sound import sound_rows
from peftsearch.tasks.reading.table import Table, read_table
from peftsearch.tasks.task import Split, Task

CHAT = "chat"
"""In place of a template, for chats that the model's own chat template renders."""
DEFAULT_TEMPLATE = "{prompt}\n{completion}"
ALPACA = ("instruction", "input", "output")
"""Columns of Alpaca's data: the prompt is the instruction and, where there is one, the input."""
COLUMNS = (
    ("prompt", "completion"),
    ("meaning_representation", "reference"),
    ("input", "output"),
    ("question", "answer"),
    ("instruction", "response"),
)
"""Names of prompt and completion columns to try when guessing, in this order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """The text around a prompt, and the point where the completion begins.

    Spaces before the completion belong to it, since tokenizers put them into the next word; seq2seq models drop all
    white space there.
    """

    before: str = ""
    """Text before the prompt."""
    between: str = "\n"
    """Text after the prompt, excluding spaces at its end."""
    lead: str = ""
    """Spaces at the beginning of the completion."""

    @classmethod
    def parse(cls, text: str) -> Template:
        r"""Parse a template: `{prompt}` with any text around it, then `{completion}`; `\n` and `\t` are escapes.

        Raises:
            TaskError: The template has another form.
        """
        text = text.replace("\\n", "\n").replace("\\t", "\t")
        before, prompt, rest = text.partition("{prompt}")
        between, completion, behind = rest.partition("{completion}")
        if not prompt or not completion or behind or "{prompt}" in between:
            raise TaskError(
                f"template {one_line(text, 80)!r}: it must hold {{prompt}} once and end with {{completion}}, like "
                "'{prompt}\\n{completion}'"
            )
        bare = between.rstrip(" ")
        return cls(before=before, between=bare, lead=between[len(bare) :])


def load_pairs(options: TaskOptions, seed: int = 0, train: Table | None = None, told: Sequence[str] = ()) -> Task:
    """Read a generation task from CSV, TSV, JSON lines or Parquet files.

    Args:
        options: Files, columns, template and metric; None means guess.
        seed: Seed of the choice of validation prompts, if no validation file is given.
        train: The training file's table, where it is read already.
        told: Notes on what was read.

    Raises:
        TaskError: A file or its content cannot be used.
    """
    assert options.train is not None, "a task of files has a training file"
    paths = {"train": options.train, "validation": options.validation, "test": options.test}
    left_out = list(told)
    tables = {
        name: train if name == "train" and train is not None else read_table(path, options.bad_rows or ERROR, left_out)
        for name, path in paths.items()
        if path is not None
    }
    source = "files " + ", ".join(f"{name}={Path(path).name}" for name, path in paths.items() if path is not None)
    return build_pairs(options.train.stem, source, tables, options, seed, left_out)


def build_pairs(
    name: str, source: str, tables: Mapping[str, Table], options: TaskOptions, seed: int, told: Sequence[str] = ()
) -> Task:
    """Build a generation task of prompts and completions, or of chats.

    Args:
        name: A short name.
        source: Origin of the data.
        tables: The splits by name; `train` at least.
        options: Columns, template, metric and treatment of faulty rows; None means guess.
        seed: Seed of the choice of validation prompts, without a validation split.
        told: Notes on what was read.

    Raises:
        TaskError: The content of a table cannot be used.
    """
    form = _form(options.template)
    metric = choose_metric("generation", options.metric)
    chats = None if options.prompt_column or options.completion_column else chat_column(tables["train"])
    if chats is not None:
        columns, notes = Columns(text=chats, label=chats), [f"{tables['train'].where}: chats in column {chats!r}"]
        if options.template is not None:
            raise TaskError("template: chats are rendered by the model's own chat template; leave it out")
        read: Callable[[Table], Split] = partial(chats_of, column=chats)
    else:
        columns, notes = _choose(tables["train"], options.prompt_column, options.completion_column)
        read = partial(_split, columns=columns, form=form)
    notes += told
    for table in tables.values() if chats is None else ():
        columns.check(table)
    splits = {split: sound_rows(table, read, options.bad_rows or ERROR, notes)[1] for split, table in tables.items()}
    if "validation" not in splits:
        splits["train"], splits["validation"] = _split_off(splits["train"], VALIDATION_SHARE, seed)
        n_prompts = len(set(splits["validation"].texts))
        notes.append(
            f"no validation given: {len(splits['validation'])} rows of {n_prompts} prompts were split off train"
        )
    known = set(splits["train"].texts)
    for split in ("validation", "test"):
        shared = len(known & set(splits[split].texts)) if split in splits else 0
        if shared:
            notes.append(f"{shared} prompts of {split} occur in train too")
    return Task(
        name=name,
        kind="generation",
        labels=(),
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        metric=metric,
        source=source,
        columns=columns,
        notes=tuple(notes),
        template=CHAT if chats is not None else options.template or DEFAULT_TEMPLATE,
    )


def pairs_of(table: Table, prompt: str | None, completion: str | None, known: Columns, template: str | None) -> Split:
    """Read the prompts and completions of a separate table, for a task whose columns are known.

    Args:
        table: The table to score.
        prompt: The user's column of prompts; None takes the known column, or a guess if the table does not have it.
        completion: The user's column of completions; None takes the known column or a guess, as for `prompt`.
        known: The columns used in training.
        template: The template that joins prompt and completion.

    Raises:
        TaskError: A column is missing or cannot be guessed, or a text is missing.
    """
    if known.holds_chats:
        of_chats = partial(chats_of, column=prompt or known.text)
        return sound_rows(table, of_chats, None, [])[1]
    named = (prompt, known.text), (completion, known.label)
    own, other = (given or (name if name in table.columns else None) for given, name in named)
    columns, _ = _choose(table, own, other)
    columns.check(table)
    read = partial(_split, columns=replace(columns, pair=known.pair if prompt is None else None), form=_form(template))
    return sound_rows(table, read, None, [])[1]


def prompts_of(table: Table, prompt: str | None, known: Columns, template: str | None) -> Split:
    """Read the prompts of a table, with empty completions.

    Raises:
        TaskError: The column or a prompt is missing.
    """
    name = prompt or known.text
    if known.holds_chats:
        return prompts_of_chats(table, name)
    if name not in table.columns:
        raise TaskError(f"{missing_column(table, name)}; name it with --prompt-column")
    form = _form(template)
    prompts = _prompts(table, name, known.pair if prompt is None else None)
    texts = [f"{form.before}{text}{form.between}" for text in prompts]
    return Split(texts=texts, pairs=[""] * len(texts), labels=[0] * len(texts))


def _form(template: str | None) -> Template:
    return Template.parse(DEFAULT_TEMPLATE if template is None else template)


def _choose(table: Table, prompt: str | None, completion: str | None) -> tuple[Columns, list[str]]:
    """Choose the columns; adds a note if they were guessed, and one on texts that are left out."""
    for name in filter(None, (prompt, completion)):
        if name not in table.columns:
            raise TaskError(missing_column(table, name))
    free = {name.lower(): name for name in table.columns if name not in (prompt, completion)}
    if prompt is None and {*ALPACA} <= {*free, *([str(completion).lower()] if completion else [])}:
        task, context, answer = (free.get(name, str(completion)) for name in ALPACA)
        told = f"{table.where}: read as Alpaca: prompt {task!r} and {context!r}, completion {completion or answer!r}"
        return _with_unused(table, Columns(text=task, pair=context, label=completion or answer), [told])
    for first, second in COLUMNS:
        found = (prompt or free.get(first), completion or free.get(second))
        if found[0] and found[1]:
            break
    else:
        known = ", ".join("/".join(pair) for pair in COLUMNS)
        raise TaskError(
            f"{table.where}: cannot tell prompt and completion from the columns {', '.join(table.columns)} (known: "
            f"{known}); name them with --prompt-column and --completion-column"
        )
    if found[0] == found[1]:
        raise TaskError(f"{table.where}: prompt and completion must be different columns, got {found[0]} for both")
    columns = Columns(text=found[0], label=found[1])
    if prompt and completion:
        return columns, []
    guessed = f"{table.where}: columns guessed: prompt {found[0]!r}, completion {found[1]!r}"
    return _with_unused(table, columns, [guessed])


def _with_unused(table: Table, columns: Columns, notes: list[str]) -> tuple[Columns, list[str]]:
    """The columns, and a note on further columns that hold texts."""
    unused = columns.unused_texts(table)
    return columns, [*notes, *([unused] if unused else [])]


def _split(table: Table, columns: Columns, form: Template) -> Split:
    columns.check(table)
    prompts, completions = _prompts(table, columns.text, columns.pair), read_texts(table, columns.label)
    return Split(
        texts=[f"{form.before}{prompt}{form.between}" for prompt in prompts],
        pairs=[f"{form.lead}{completion.strip()}" for completion in completions],
        labels=[0] * len(table),
    )


def _prompts(table: Table, column: str, context: str | None) -> list[str]:
    """The prompts: the texts of a column, each followed by its context where there is one, as in Alpaca."""
    prompts = read_texts(table, column)
    if context is None or context not in table.columns:
        return prompts
    contexts = ["" if is_null(value) else str(value).strip() for value in table.columns[context]]
    return [f"{prompt}\n\n{more}" if more else prompt for prompt, more in zip(prompts, contexts, strict=True)]


def _split_off(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Split off the rows of a share of the prompts, keeping all rows of a prompt together; returns rest and part."""
    prompts = list(dict.fromkeys(train.texts))
    if len(prompts) < 2:
        raise TaskError(
            f"train: {len(prompts)} prompt is too few to split validation off; give a validation file with --validation"
        )
    taken = set(Random(seed).sample(prompts, min(max(1, round(share * len(prompts))), len(prompts) - 1)))
    inside = [i for i, prompt in enumerate(train.texts) if prompt in taken]
    outside = [i for i, prompt in enumerate(train.texts) if prompt not in taken]
    return train.take(outside), train.take(inside)
