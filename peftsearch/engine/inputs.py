"""Options of model, data and machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class InputOptions:
    """Model, data and machine, as every command takes them that trains; `train` takes from the run what is None."""

    model: str | None = None
    """Hub id or folder; None is the embedded MiniLM."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""
    trust_remote_code: bool = False
    """Whether code that a hub model brings may run."""
    anatomy: Path | None = None
    """YAML that describes an unknown backbone by hand."""
    task: str | None = None
    """Embedded task or hub data set; None with `train` files, else the default task."""
    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    prompt_column: str | None = None
    """Column of the prompt of a generation; None guesses, as the next."""
    completion_column: str | None = None
    template: str | None = None
    """How prompt and completion are put together; None is a line each."""
    kind: Literal["classification", "regression", "generation", "image"] | None = None
    """None guesses classification or regression; `image` is a classification of images."""
    metric: str | None = None
    """Name of the score; None takes the task's own."""
    max_train: int | None = None
    """Most training examples; None takes all."""
    learning_rate: float | None = None
    """Base rate, which methods scale."""
    batch_size: int | None = None
    """Examples of an optimizer step."""
    max_length: int | None = None
    """Tokens after which a text is cut."""
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
    """`auto`, `fp32` or `bf16`."""
    quantize: str | None = None
    """`nf4` or `int8` packs the frozen linear maps."""
