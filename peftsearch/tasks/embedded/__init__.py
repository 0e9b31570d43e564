"""Generated English tasks, identical on every machine, for first trials, tests and demonstrations.

To add a task, write a file with `LABELS` and `make(rng, label, rare)`, and add a line to the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from peftsearch.errors import TaskError, unknown_name
from peftsearch.tasks.embedded import acceptability, entailment, sentiment
from peftsearch.tasks.embedded.generate import Maker, make_split
from peftsearch.tasks.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Grammar:
    """A generated task."""

    description: str
    """One line for `peftsearch list tasks`."""
    labels: tuple[str, str]
    """Names of the two classes."""
    make: Maker
    """Function that makes one example."""


EMBEDDED = {
    "sentiment": Grammar(
        description="short reviews, negative or positive, decided by negation and contrast",
        labels=sentiment.LABELS,
        make=sentiment.make,
    ),
    "acceptability": Grammar(
        description="sentences whose verb agrees with its subject or not, with other nouns around",
        labels=acceptability.LABELS,
        make=acceptability.make,
    ),
    "entailment": Grammar(
        description="pairs of sentences with the same words: does the second follow from the first?",
        labels=entailment.LABELS,
        make=entailment.make,
    ),
}


def load_embedded(name: str, seed: int = 0, n_train: int = 2000, n_validation: int = 500, n_test: int = 500) -> Task:
    """Generate a task.

    Args:
        name: A name of the table.
        seed: The same seed gives the same task on every machine.
        n_train: Number of examples to train on.
        n_validation: Number of examples to score trials on.
        n_test: Number of examples to score the winner on; 0 for no test split.

    Raises:
        TaskError: There is no such task, or a size is too small or too large.
    """
    if name not in EMBEDDED:
        raise TaskError(unknown_name("task", name, EMBEDDED))
    sizes = {"train": n_train, "validation": n_validation, "test": n_test}
    for split, size in sizes.items():
        least = 0 if split == "test" else 2
        if size < least:
            raise TaskError(f"task {name!r}: n_{split} is {size}; it must be at least {least}")
    grammar = EMBEDDED[name]
    splits = {split: make_split(grammar.make, name, split, size, seed) for split, size in sizes.items()}
    return Task(
        name=name,
        kind="classification",
        labels=grammar.labels,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"] if n_test else None,
        metric="accuracy",
        source=f"embedded {name}, seed {seed}, {n_train} + {n_validation} + {n_test} examples",
    )
