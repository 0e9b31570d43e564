"""The result of a search, `best.yaml`, read and written in one typed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.folder import lasting_name
from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.errors import ConfigError, MethodError, one_line
from peftsearch.files import MAX_OUTPUT_BYTES, from_plain, read_yaml, to_plain
from peftsearch.study.stored_task import StoredTask

BEST = "best.yaml"
FORMAT = "peftsearch-best/1"
Source = str | PathLike[str] | Mapping[str, Any]
VerdictKind = Literal["winner", "equivalent", "baseline", "tie", "no_signal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredVerdict:
    """The claim that the comparison supports."""

    kind: VerdictKind
    statement: str
    settle: str = ""
    """Advice that would settle an open question; empty if there is none."""
    extend: str = ""
    """Options of `peftsearch extend` that follow the advice; empty where an extension would not help."""
    p_value: float | None = None
    """Corrected p-value of the pick against the best baseline; None if they are not compared."""
    small: str | None = None
    """Name of the cheapest design that is shown not to be inferior to the best baseline; None without one."""
    tied: tuple[str, ...] = ()
    """Names of the designs that cannot be distinguished from the best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """The backbone that a design was found on."""

    name: str
    """Hub id or folder."""
    revision: str = ""
    """Commit or fingerprint of the weights; empty when unknown."""
    model_type: str
    """transformers' name of the family."""
    n_params: int
    quantize: str | None = None
    """Packing of the weights; None if they were not packed."""
    stacks: dict[str, int]
    """Blocks of each stack."""

    @classmethod
    def of(cls, backbone: Backbone, quantize: str | None, **more: Any) -> Self:
        """Store a backbone.

        Args:
            backbone: Anatomy of the model.
            quantize: How its weights are packed; None when they are not.
            **more: Fields of a subclass.
        """
        return cls(
            name=lasting_name(backbone.name),
            revision=backbone.revision,
            model_type=backbone.model_type,
            n_params=backbone.n_params,
            quantize=quantize,
            stacks=backbone.depths,
            **more,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBudget:
    """The budget, and how much of it the pick uses."""

    text: str
    """Budget as the user wrote it: `0.1%`."""
    n_params: int
    used: int
    """Trainable parameters of the pick, excluding the task head."""
    share_used: float | None = None
    changed: int | None = None
    """Number of parameters in which the tuned model differs from the pretrained one."""
    count_head: bool = False
    """Whether the budget includes the task head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredScores:
    """Scores of the pick, each as `Scores.to_dict` gives them."""

    validation: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    search: float | None = None
    """Score of the short training in the search."""
    frozen_model: float | None = None
    """Score of the untrained model, the baseline for generation tasks."""
    perplexity: dict[str, float | None] | None = None
    """Perplexity by split, for generation tasks that are searched by likelihood."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRow:
    """One line of the comparison; see `Confirmed`."""

    name: str
    baseline: bool = False
    reference: bool = False
    detail: str = ""
    n_params: int | None = None
    n_changed: int | None = None
    share: float | None = None
    search_score: float | None = None
    validation: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    tasks: dict[str, Any] = field(default_factory=dict)
    exports: tuple[str, ...] | None = None
    """Targets that need no peftsearch: peft, merged; None where the design is not known."""
    n_collapsed: int = 0
    """Trainings that collapsed and were tried again at a lower rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredDesign:
    """A confirmed design other than the pick."""

    design: dict[str, Any]
    architecture: dict[str, Any]
    learning_rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The content of `best.yaml`."""

    format: Literal["peftsearch-best/1"] = "peftsearch-best/1"
    verdict: StoredVerdict
    name: str
    """The pick: `trial 14`, `lora`."""
    picked: str | None = None
    """The run's own pick, if another confirmed design was requested instead; otherwise None."""
    model: StoredModel
    task: StoredTask = field(default_factory=StoredTask)
    budget: StoredBudget
    design: dict[str, Any]
    """The design, as `Design.to_dict` gives it."""
    architecture: dict[str, Any]
    """The architecture with the label of every size."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of the confirmation: those of `TrainingSettings`, with steps and dtype."""
    scores: StoredScores = field(default_factory=StoredScores)
    comparison: tuple[StoredRow, ...] = ()
    confirmed: dict[str, StoredDesign] = field(default_factory=dict)
    """The other confirmed designs by name."""
    headroom: str = ""
    """Whether the budget limits the score, in a sentence; empty for strategies that do not look."""
    ended_early: str = ""
    """Why the search ended before its last trial, in a sentence; empty if it did not."""
    stages: tuple[dict[str, Any], ...] = ()
    """Closed stages of a staged search."""
    seed: int = 0
    space: str = ""
    strategy: str = ""
    study: str = ""
    """Folder of the run, as the user gave it; empty when unknown."""
    hardware: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    made: str = ""
    """Time of writing, in ISO 8601."""

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """All blocks of the backbone as (stack, index), input side first."""
        return [(stack, i) for stack, n in self.model.stacks.items() for i in range(n)]

    @property
    def labels(self) -> dict[tuple[str, int, str], str]:
        """Readable size of each (stack, block, method) of the architecture."""
        return {
            (entry["stack"], entry["block"], method): str(facts.get("label", facts["size"]))
            for entry in self.architecture["blocks"]
            for method, facts in entry["methods"].items()
        }

    @property
    def steps(self) -> int:
        """Optimizer steps of a confirmation."""
        return int(self.training["steps"])

    @property
    def learning_rate(self) -> float:
        """Base learning rate of the pick."""
        return float(self.training["learning_rate"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An architecture with the design and the backbone that it came from."""

    where: str
    """The file, for messages."""
    name: str
    """Name of the design in the run: `trial 14`, `lora`."""
    architecture: Architecture
    design: Design
    model_name: str
    """Hub id or folder of the backbone."""
    revision: str
    """Commit or fingerprint of the backbone's weights; empty when unknown."""
    model_type: str
    """transformers' name of the family."""
    stacks: dict[str, int]
    """Blocks of each stack of the backbone."""
    quantize: str | None = None
    """Packing of the backbone's weights; None if they were not packed."""
    task: StoredTask = field(default_factory=StoredTask)
    max_length: int | None = None
    """Most tokens of a text in training."""
    dtype: str | None = None
    """Precision of the products in training; None when unknown."""
    study: str = ""
    """Folder of the run, as the user gave it; empty when unknown."""


def read_found(source: Source, design: str | None = None) -> Found:
    """Read the architecture and the design that a search found.

    Args:
        source: A run's folder, the path of its `best.yaml`, or the mapping that the file holds.
        design: Name of a confirmed design other than the pick: `trial 14` (or `14`), `lora`.

    Raises:
        ConfigError: The file does not exist, is not the `best.yaml` of a run, is damaged, or has no such design.
    """
    return parse_found(*read_best(source, design))


def read_best(source: Source, design: str | None = None) -> tuple[str, Best]:
    """Read a `best.yaml`, with the requested design in place of the pick.

    Args:
        source: A run's folder, the path of its `best.yaml`, or the mapping that the file holds.
        design: Name of a confirmed design other than the pick.

    Returns:
        The file, for messages, and its content.

    Raises:
        ConfigError: In the same cases as for `read_found`.
    """
    if isinstance(source, Mapping):
        where, data = "best", source
    else:
        path = Path(source)
        if path.is_dir():
            path = path / BEST
            if not path.is_file() and any(path.parent.glob(f"*/{BEST}")):
                raise ConfigError(
                    f"{path.parent}: is a folder of runs; `peftsearch runs {path.parent}` lists them, give one of them"
                )
            if not path.is_file():
                raise ConfigError(f"{path.parent}: no {BEST}; the run is not finished, `peftsearch run` resumes it")
        where, data = str(path), read_yaml(path, MAX_OUTPUT_BYTES)
    if data.get("format") != FORMAT:
        raise ConfigError(f"{where}: is not the best.yaml of a run (format {data.get('format')!r}, not {FORMAT!r})")
    best = from_plain(Best, data, where)
    _check_parts(where, best)
    return where, best if design is None else _with_design(where, best, design)


def _check_parts(where: str, best: Best) -> None:
    """Check the parts that the types do not cover: architecture, design, labels and training.

    Raises:
        ConfigError: A part is damaged.
    """
    try:
        Architecture.from_dict(best.architecture)
        Design.from_dict(best.design)
        for other in best.confirmed.values():
            Architecture.from_dict(other.architecture)
            Design.from_dict(other.design)
        _ = best.labels, best.steps, best.learning_rate
    except ConfigError as error:
        raise ConfigError(f"{where}: is damaged: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: is damaged: {type(error).__name__} {error}") from error


def _with_design(where: str, best: Best, design: str) -> Best:
    """Put another confirmed design in place of the pick, and the name of the pick under `picked`.

    The verdict and the scores do not change.
    """
    name = f"trial {design}" if str(design).isdecimal() else str(design)
    if name == best.name:
        return best
    if name not in best.confirmed:
        known = ", ".join((best.name, *best.confirmed))
        raise ConfigError(f"{where}: has no confirmed design {one_line(name, 60)!r} (it has {known})")
    own = best.confirmed[name]
    row = next((row for row in best.comparison if row.name == name), StoredRow(name=name))
    used = Architecture.from_dict(own.architecture).n_params
    return replace(
        best,
        name=name,
        picked=best.name,
        design=own.design,
        architecture=own.architecture,
        training={**best.training, "learning_rate": own.learning_rate},
        budget=replace(best.budget, used=used, share_used=row.share, changed=row.n_changed),
    )


def parse_found(where: str, best: Best) -> Found:
    """Parse the architecture and the design of a `best.yaml`."""
    return Found(
        where=where,
        name=best.name,
        architecture=Architecture.from_dict(best.architecture),
        design=Design.from_dict(best.design),
        model_name=best.model.name,
        revision=best.model.revision,
        model_type=best.model.model_type,
        stacks=dict(best.model.stacks),
        quantize=best.model.quantize,
        task=best.task,
        max_length=best.training.get("max_length"),
        dtype=best.training.get("dtype"),
        study=best.study,
    )


def best_content(best: Best) -> dict[str, Any]:
    """The content of the file as plain values, without `picked` when it is None."""
    content = to_plain(best)
    return {key: value for key, value in content.items() if key != "picked" or value is not None}


def require_same_backbone(found: Found, backbone: Backbone) -> None:
    """Refuse a backbone of another family or depth, naming the first difference.

    Widths are compared with the architecture's own counts when it is injected.

    Raises:
        MethodError: The architecture was found on another kind of backbone.
    """
    there, here = _kind(found.model_type, found.stacks), _kind(backbone.model_type, backbone.depths)
    if there != here:
        raise MethodError(
            f"{found.where}: the architecture was found on {there}, this model is {here}; use peftsearch.refit to size "
            "the design for this model"
        )


def _kind(model_type: str, stacks: Mapping[str, int]) -> str:
    return f"{model_type} with " + " and ".join(f"{n} {name} blocks" for name, n in stacks.items())
