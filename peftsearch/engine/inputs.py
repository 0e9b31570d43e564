"""Options of model, data and machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError

if TYPE_CHECKING:
    from peftsearch.backbone.load import LoadedBackbone


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


def within_positions(
    training: TrainingSettings, max_length: int | None, loaded: LoadedBackbone
) -> tuple[TrainingSettings, tuple[str, ...]]:
    """Hold the length of texts against the positions that the model has.

    Args:
        training: Settings with a length.
        max_length: What the user asked for; None where the length is a default, which may be cut.
        loaded: The model.

    Returns:
        The settings, and what the user should know.

    Raises:
        ConfigError: The user asked for more than the model has.
    """
    from peftsearch.backbone.load import max_positions

    if loaded.reads_images:
        if max_length is not None:
            raise ConfigError(
                f"--max-length {max_length}: {loaded.backbone.name} reads images, not texts; leave it out"
            )
        return training, ()
    limit = max_positions(loaded)
    if limit is None or training.max_length <= limit:
        return training, ()
    if max_length is not None:
        raise ConfigError(f"--max-length {max_length}: {loaded.backbone.name} has positions for {limit} tokens")
    return replace(training, max_length=limit), (f"texts are cut at {limit} tokens, for which the model has positions",)
