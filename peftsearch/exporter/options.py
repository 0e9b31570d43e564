"""Options of an export, and checks that need no loading."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from peftsearch.errors import CheckpointError
from peftsearch.options import OptionGroup, TunedModelOptions, group


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions(OptionGroup):
    """Options for the source of parameters and backbone."""

    design: str | None = None
    """A confirmed design of the run other than its pick: 'trial 14', lora."""
    seed: int | None = None
    """Seed of the run's confirmed training to export (default: the first)."""
    partial: bool = False
    """Let a merged export of a design that merges in part keep the rest in a folder beside the model."""
    push_to_hub: str | None = None
    """Upload the folder to this repository of the hub: ORG/NAME."""
    task: str | None = None
    """Task to export, of a run with several."""
    model: Annotated[TunedModelOptions, group("Model (default: the one that was used)")] = field(
        default_factory=TunedModelOptions
    )


def require_source(what: Path) -> None:
    """Check that the source of an export exists.

    Raises:
        CheckpointError: There is no such file or folder.
    """
    if not what.exists():
        raise CheckpointError(
            f"{what}: no such file; give a run's folder, its best.yaml, or a folder of peftsearch.save"
        )
