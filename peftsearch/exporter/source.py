"""Sources of an export: a run's pick with its confirmed parameters, or a folder of `peftsearch.save`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.folder import hub_commit
from peftsearch.backbone.load import LoadedBackbone
from peftsearch.design.architecture import Architecture
from peftsearch.engine.inputs import load_model
from peftsearch.errors import CheckpointError, MethodError
from peftsearch.exporter.options import ExportOptions, require_source
from peftsearch.injection.checkpoint import FACTS, Checkpoint, labels_of, load_base, put, read_checkpoint, read_tensors
from peftsearch.injection.inject import Injection, inject
from peftsearch.injection.states import load_state
from peftsearch.study.best import Found, read_found, require_same_backbone
from peftsearch.study.folder import confirmed_seeds, state_paths
from peftsearch.study.settings import kept_subspace
from peftsearch.tasks.kinds import n_outputs


@dataclass(frozen=True, kw_only=True, slots=True)
class Exportable:
    """A trained architecture in its model; exporting may consume the model."""

    injection: Injection
    tokenizer: Any
    origin: str
    """Origin of the parameters, for the user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSource:
    """The facts read from a source, before any model is loaded."""

    architecture: Architecture
    options: ExportOptions
    found: Found | None = None
    """The run's result; None if the source is not a run."""
    checkpoint: Checkpoint | None = None
    """The checkpoint; None if the source is not a folder of `peftsearch.save`."""
    state: Path | None = None
    """File of a run's confirmed parameters; None if there is no such file."""
    task: dict[str, Any] = field(default_factory=dict)
    """Facts of the task that the parameters were trained on."""

    def open(self, weights: bool = True) -> Exportable:
        """Load the model and put architecture and parameters into it.

        Args:
            weights: Whether the parameters are needed; a run's architecture can be opened without them.

        Raises:
            CheckpointError: The parameters are missing, damaged, or belong to another model.
            BackboneError: The model cannot be loaded.
            MethodError: The architecture does not fit the model.
        """
        if self.checkpoint is not None:
            return self._open_checkpoint(self.checkpoint)
        assert self.found is not None, "a source is a run or a folder"
        if weights and self.state is None:
            raise CheckpointError(
                f"{self.found.where}: the run's confirmed parameters are not there (no confirmed/*.safetensors of "
                f"{self.found.name!r}); train the design again with `peftsearch train`"
            )
        loaded = self._load(self.found, self.found.quantize if weights else None)
        require_same_backbone(self.found, loaded.backbone)
        injection = inject(loaded.model, self.architecture, loaded.backbone)
        injection.injected.task = self.task
        if self.state is not None and weights:
            try:
                load_state(loaded.model, self.state)
            except MethodError as error:
                raise CheckpointError(f"{self.state}: {error}") from error
        _name_labels(loaded.model, self.task)
        return Exportable(injection=injection, tokenizer=loaded.tokenizer, origin=str(self.state or self.found.where))

    def _open_checkpoint(self, checkpoint: Checkpoint) -> Exportable:
        values = read_tensors(checkpoint)
        model = self.options.model
        if model.name is None:
            loaded = load_base(checkpoint, trust_remote_code=model.trust_remote_code, anatomy=model.anatomy)
        else:
            num_labels, kind = labels_of(checkpoint)
            loaded = load_model(model, kind, num_labels, quantize=checkpoint.model.quantize)
        injection = put(loaded.model, loaded.backbone, checkpoint, values)
        _name_labels(loaded.model, checkpoint.task)
        return Exportable(injection=injection, tokenizer=loaded.tokenizer, origin=str(checkpoint.where))

    def _load(self, found: Found, quantize: str | None) -> LoadedBackbone:
        kind = self.task.get("kind")
        model = self.options.model
        if model.name is None:
            model = replace(model, name=found.model_name, revision=model.revision or hub_commit(found.revision))
        if model.subspace is None:
            model = replace(model, subspace=kept_subspace(Path(found.where).parent, found.architecture))
        num_labels = n_outputs(kind, max(1, len(self.task.get("labels") or ())))
        loaded = load_model(model, kind, num_labels, quantize=quantize)
        if self.options.model.name is None:
            _require_revision(found, loaded.backbone)
        return loaded


def read_source(what: Path, options: ExportOptions) -> ExportSource:
    """Read the source of an export.

    Args:
        what: A run's folder, its `best.yaml`, or a folder of `peftsearch.save`.
        options: The user's options for the source.

    Raises:
        PeftSearchError: The source is neither, or is damaged, or does not have the seed or task.
    """
    if (what / FACTS).is_file():
        checkpoint = read_checkpoint(what)
        if (options.design, options.seed, options.task) != (None, None, None):
            raise CheckpointError(f"{what}: holds one set of parameters; leave --design, --seed and --task out")
        return ExportSource(architecture=checkpoint.architecture, options=options, checkpoint=checkpoint)
    require_source(what)
    found = read_found(what, options.design)
    trained = {"max_length": found.max_length, "dtype": found.dtype}
    known = {name: value for name, value in trained.items() if value is not None}
    tasks = [task.head() | known for task in found.task.each]
    index = _task_index(found, tasks, options.task)
    return ExportSource(
        architecture=found.architecture,
        options=options,
        found=found,
        state=_confirmed(found, what if what.is_dir() else what.parent, options.seed, len(tasks), index),
        task=tasks[index],
    )


def _task_index(found: Found, tasks: list[dict[str, Any]], name: str | None) -> int:
    names = [str(task.get("name", "")) for task in tasks]
    if name is None and len(names) == 1:
        return 0
    if name not in names:
        told = "has parameters of several tasks" if name is None else f"has no task {name!r}"
        raise CheckpointError(f"{found.where}: {told}; give one with --task ({', '.join(names)})")
    return names.index(name)


def _confirmed(found: Found, folder: Path, seed: int | None, n_tasks: int, index: int) -> Path | None:
    """The file of the confirmed parameters: next to `best.yaml`, or in the folder that the run was given."""
    for run in (folder, Path(found.study) if found.study else folder):
        seeds = confirmed_seeds(run, found.name)
        if seed is not None and seeds and seed not in seeds:
            raise CheckpointError(f"{run}: {found.name!r} was not confirmed with seed {seed} (it has {seeds})")
        if seeds:
            path = state_paths(run, found.name, seeds[0] if seed is None else seed, n_tasks)[index]
            return path if path.is_file() else None
    return None


def _require_revision(found: Found, backbone: Backbone) -> None:
    if found.revision and backbone.revision and found.revision != backbone.revision:
        raise CheckpointError(
            f"{found.where}: the run used {found.model_name} at {found.revision}, which is {backbone.revision} now; "
            "get the weights that the run used, or give them with --model"
        )


def _name_labels(model: Any, task: Mapping[str, Any]) -> None:
    """Put the task's labels into the model's config, where other tools look for them."""
    labels = [str(label) for label in task.get("labels") or ()]
    if len(labels) == model.config.num_labels and len(set(labels)) == len(labels):
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}
