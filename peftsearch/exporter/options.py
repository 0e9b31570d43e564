"""Options of an export, and the checks that need nothing loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from peftsearch.errors import CheckpointError
from peftsearch.options import ModelOptions, OptionGroup, group


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions(OptionGroup):
    """What the user may say about where parameters and backbone come from."""

    design: str | None = None
    """A confirmed design of the run other than its pick: 'trial 14', lora."""
    seed: int | None = None
    """Seed of the confirmed training of a run (default: the first)."""
    task: str | None = None
    """Task of a run with several."""
    model: Annotated[ModelOptions, group("Model (default: the one that was used)")] = field(
        default_factory=ModelOptions
    )


def require_source(what: Path) -> None:
    """Check that there is something to export.

    Raises:
        CheckpointError: There is no such file or folder.
    """
    if not what.exists():
        raise CheckpointError(
            f"{what}: no such file; give a run's folder, its best.yaml, or a folder of peftsearch.save"
        )
