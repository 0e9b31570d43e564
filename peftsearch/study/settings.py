"""The settings of a study, `settings.yaml`, read and written in one typed form.

Equal settings resume a study; different ones are refused. Parts defined in other rooms (strategy, training, options)
are plain values here, as `to_plain` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftsearch.design.architecture import Architecture
from peftsearch.methods import get_method
from peftsearch.methods.abilities import Borrowing

OWN_STORAGE = "study.db"
"""File name of the storage of a study that is kept in its folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySettings:
    """Everything that identifies a study, and the user's options."""

    format: Literal["peftsearch-study/1"] = "peftsearch-study/1"
    model: str = ""
    """Hub id or folder of the backbone."""
    revision: str = ""
    """Commit or fingerprint of the backbone's weights."""
    anatomy: str = ""
    """Digest of the backbone's blocks, since a model may be described by hand in several ways."""
    subspace: str = ""
    """Digest of the file of `--subspace`; empty without one."""
    quantize: str | None = None
    task: str = ""
    task_source: str = ""
    task_fingerprint: str = ""
    metric: str = "score"
    budget: str = ""
    """Budget as the user wrote it: `0.1%`."""
    budget_params: int = 0
    """Trainable parameters of the budget."""
    count_head: bool = False
    space: str = ""
    dimensions: dict[str, Any] = field(default_factory=dict)
    """Choices of each dimension, or their number and a digest if there are many."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factor on the base learning rate, by method."""
    strategy: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    """Optimizer steps of a whole training."""
    confirm_steps: int | None = None
    """Optimizer steps of a training of the confirmation, if they differ from those of the search."""
    rungs: tuple[int, ...] = ()
    """Steps at which trials of the search pause."""
    select: str = "loss"
    """What ranks the trials of the search: loss or metric."""
    autocast: str = "none"
    """Reduced precision of the forward pass."""
    objectives: tuple[str, ...] = ("score",)
    """Names of the objectives, in the order of a trial's values."""
    constraints: dict[str, float] = field(default_factory=dict)
    """Limits in force."""
    deploy: str = "any"
    """What a design must export to: any, peft or merged."""
    seed: int = 0
    storage: str = OWN_STORAGE
    """Optuna storage URL without a password."""
    id: str = ""
    """Random id of the folder, which distinguishes studies of the same name in a shared storage."""
    options: dict[str, Any] = field(default_factory=dict)
    """The user's options; see `searcher.options`."""
    threads: int | None = None
    """CPU threads that the study began with, and goes on with; None on other devices."""
    began: dict[str, Any] = field(default_factory=dict)
    """The options of the first command, where the study was extended since."""

    @property
    def in_folder(self) -> bool:
        """Whether the storage is in the study's folder."""
        return self.storage == OWN_STORAGE


SETTINGS = "settings.yaml"
"""The file that holds the settings of a study, in its folder."""
NOT_COMPARED = frozenset({"id", "options", "began", "threads", "accumulate", "gradient_checkpointing"})
"""Settings that may differ between studies of the same command."""


SUBSPACE = "subspace.safetensors"
"""The copy of the subspace that designs of a study were found in, in its folder."""


def kept_subspace(folder: Path, architecture: Architecture) -> Path | None:
    """The copy of the subspace that a study's folder keeps, where an architecture needs it.

    Args:
        folder: The study's folder.
        architecture: An architecture that the study found.
    """
    needed = any(isinstance(get_method(p.method), Borrowing) for p in architecture.placements)
    return folder / SUBSPACE if needed and (folder / SUBSPACE).is_file() else None


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Find the first setting in which two studies differ, including nested settings.

    Args:
        there: Stored settings, as plain values.
        here: Requested settings, as plain values.

    Returns:
        The dotted name of the setting, its stored value and its requested value; None if all are equal.
    """
    for key in dict.fromkeys([*there, *here]):
        one, other = there.get(key), here.get(key)
        if key in NOT_COMPARED or one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            inner = first_difference(one, other)
            if inner is not None:
                return f"{key}.{inner[0]}", *inner[1:]
            continue
        return key, one, other
    return None
