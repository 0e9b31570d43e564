"""Turn train options into a validated `Plan`; nothing is written to disk."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from math import ceil
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.device import choose_dtype, settle_threads, suit_attention
from peftsearch.backbone.folder import hub_commit
from peftsearch.backbone.load import LoadedBackbone, n_head_params
from peftsearch.backbone.outline import preview
from peftsearch.backbone.packing import PLAIN
from peftsearch.design.architecture import Architecture
from peftsearch.design.baselines import uniform
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.design.references import FULL_LEARNING_RATE, Reference, is_in_place, make_reference
from peftsearch.design.shares import n_changed
from peftsearch.design.text import labelled
from peftsearch.engine.inputs import encode_task, load_model, memory_notes, settle_length
from peftsearch.engine.local import EVALUATION_BATCH
from peftsearch.engine.probe import HeadStart, fit_head
from peftsearch.engine.scoring import Scorer
from peftsearch.engine.settings import RANDOM_HEAD_RATE, TrainingSettings
from peftsearch.engine.trainable import Start, check_checkpointing, groups_of, ready
from peftsearch.errors import ConfigError
from peftsearch.files import plain
from peftsearch.methods.support import require_methods
from peftsearch.options import AUTO, TrainingOptions, TunedModelOptions, given
from peftsearch.study.best import require_same_backbone
from peftsearch.study.refitting import carry_over
from peftsearch.study.settings import kept_subspace
from peftsearch.tasks import Task
from peftsearch.tasks.encoding.encoded import EncodedTask
from peftsearch.tasks.encoding.pairs import EncodedPairs
from peftsearch.trainer.folder import stored_dtype, stored_threads
from peftsearch.trainer.options import HEAD, TrainOptions, check_train_options
from peftsearch.trainer.processes import Processes
from peftsearch.trainer.record import Data, Target, TrainedModel, TrainedTask, TrainedWith, TrainingRecord
from peftsearch.trainer.source import Run, find_data, load_data

EPOCHS = 3.0
"""Passes over the training split where neither epochs nor steps are asked for."""
EVALUATIONS = 10
"""Evaluations of a training where `--eval-every` is not given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that a training needs, loaded and checked."""

    options: TrainOptions
    task: Task
    data: EncodedTask
    objective: Scorer
    loaded: LoadedBackbone
    architecture: Architecture | Reference
    """What goes in; a reference trains weights of the model itself."""
    training: TrainingSettings
    n_steps: int
    eval_every: int
    processes: Processes
    autocast: torch.dtype | None
    head: HeadStart | None
    """What the head starts from; None draws it by the seed."""
    record: TrainingRecord
    """What the training is: equal records resume it, and the folder keeps it."""
    notes: tuple[str, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """One training each."""
        return tuple(range(self.options.seed, self.options.seed + self.options.seeds))

    def ready(self, seed: int, choose: bool = True) -> AbstractContextManager[nn.Module]:
        """Prepare the model as a seed begins with it; see `engine.trainable.ready`."""
        return ready(self.architecture, self.start(seed, choose))

    def start(self, seed: int, choose: bool = True) -> Start:
        """How a seed begins with the model."""
        return Start(
            loaded=self.loaded,
            data=self.data.train,
            seed=seed,
            batch_size=self.training.batch_size,
            loss_of=self.objective.loss,
            device=self.processes.device,
            autocast=self.autocast,
            choose=choose,
            head=self.head,
        )

    def groups(self) -> list[dict[str, Any]]:
        """AdamW's parameter groups of the model while it is `ready`."""
        return groups_of(self.loaded, self.architecture, self.training)


def prepare(options: TrainOptions, run: Run | None) -> Plan:
    """Load and check everything; writes nothing.

    Args:
        options: The options of the training.
        run: The run that `options.best` names.

    Raises:
        PeftSearchError: What is wrong with the options, the run, the data or the model.
    """
    check_train_options(options)
    training = _training(options, run)
    data = find_data(options, run)
    processes = Processes(options.machine.device, unused=is_in_place(options.method))
    if options.model.device_map is not None and processes.n > 1:
        raise ConfigError("--device-map gives all GPUs to one process; start one, without `accelerate launch`")
    threads = _settle_threads(options, processes)
    # A training that began elsewhere goes on in the precision that it began in.
    begun = stored_dtype(options.output) if options.resume and options.machine.dtype in (None, "auto") else None
    autocast = choose_dtype(processes.device, begun or options.machine.dtype)
    task, notes = load_data(data, run)
    _check_methods(options, run)
    quantize, packed = _packing(options, run)
    loaded = load_model(
        _model(options, run),
        task.kind,
        task.num_labels,
        device=processes.device,
        quantize=quantize,
        compute_dtype=None if is_in_place(options.method) else autocast,
    )
    suit_attention(loaded.model, processes.device, autocast)
    given_length = options.training.max_length or (AUTO if run is None else None)
    training, cut = settle_length(training, given_length, loaded, [task])
    design, architecture, budget, fitted = _architecture(options, run, loaded)
    check_checkpointing(training, loaded)
    encoded = encode_task(loaded, task, training.max_length, data.options.bad_rows)
    task = encoded.task
    n_steps = options.steps or ceil((options.epochs or EPOCHS) * ceil(len(task.train) / training.batch_size))
    n_trained = architecture.n_params + n_head_params(loaded)
    room = memory_notes(loaded, training, n_trained, task.kind, processes.device, autocast)
    eval_every = min(n_steps, options.eval_every or ceil(n_steps / EVALUATIONS))
    objective = Scorer(task, training)
    record = TrainingRecord(
        method=options.method or (run.found.name if run is not None else ""),
        model=TrainedModel.of(loaded.backbone, quantize, n_head=n_head_params(loaded), subspace=_subspace(loaded)),
        task=_task_facts(encoded, objective, data),
        n_params=architecture.n_params,
        n_changed=_n_changed(architecture, loaded),
        budget=budget,
        design=None if design is None else plain(design.to_dict()),
        architecture=None if isinstance(architecture, Reference) else labelled(architecture, loaded.backbone),
        training=TrainedWith(
            **asdict(training),
            steps=n_steps,
            eval_every=eval_every,
            early_stopping=options.early_stopping,
            dtype="fp32" if autocast is None else str(autocast).removeprefix("torch."),
            processes=processes.n,
            threads=torch.get_num_threads() if processes.device.type == "cpu" else None,
        ),
        seed=options.seed,
        seeds=options.seeds,
    )
    return Plan(
        options=options,
        task=task,
        data=encoded,
        objective=objective,
        loaded=loaded,
        architecture=architecture,
        training=training,
        n_steps=n_steps,
        eval_every=eval_every,
        processes=processes,
        autocast=autocast,
        head=_head(loaded, objective, encoded, training, processes, autocast),
        record=record,
        notes=(*threads, *notes, *task.notes, *packed, *cut, *encoded.notes, *fitted, *room),
    )


def _settle_threads(options: TrainOptions, processes: Processes) -> tuple[str, ...]:
    """Choose the threads of a single process, as many as a training that goes on began with; gives notes."""
    if processes.n > 1:
        return ()
    before = stored_threads(options.output) if options.resume else None
    return settle_threads(options.machine.threads, processes.device, before)


def _head(
    loaded: LoadedBackbone,
    objective: Scorer,
    encoded: EncodedTask,
    training: TrainingSettings,
    processes: Processes,
    autocast: torch.dtype | None,
) -> HeadStart | None:
    """What the head starts from: every process fits the same one, so that none has to wait for another."""
    if training.head != "probe":
        return None
    size = max(EVALUATION_BATCH, 2 * training.batch_size)
    return fit_head(loaded, objective, encoded.train, batch_size=size, device=processes.device, autocast=autocast)


def _n_changed(architecture: Architecture | Reference, loaded: LoadedBackbone) -> int:
    return architecture.n_params if isinstance(architecture, Reference) else n_changed(architecture, loaded.backbone)


def _subspace(loaded: LoadedBackbone) -> str | None:
    """Digest of the subspace of prompts; None without one."""
    known = loaded.backbone.subspace
    return None if known is None else known.digest


def _task_facts(encoded: EncodedTask, objective: Scorer, data: Data) -> TrainedTask:
    """What evaluating and predicting need of the task; `data` finds it again."""
    task, columns = encoded.task, encoded.task.columns
    is_regression = task.kind == "regression"
    return TrainedTask(
        name=task.name,
        kind=task.kind,
        labels=tuple(task.labels),
        metric=task.metric,
        source=task.source,
        fingerprint=task.fingerprint,
        columns=None if columns is None else replace(columns, note=None),
        pairs=task.train.pairs is not None,
        images=task.has_images,
        target=Target(mean=objective.mean, scale=objective.scale) if is_regression else None,
        data=data,
        max_new=encoded.train.max_new if isinstance(encoded.train, EncodedPairs) else None,
        template=task.template,
        notes=(*task.notes, *encoded.notes),
    )


def _training(options: TrainOptions, run: Run | None) -> TrainingSettings:
    """The run's training settings with the options' own numbers put in."""
    known = set(asdict(TrainingSettings()))
    settings = {} if run is None else {key: value for key, value in run.training.items() if key in known}
    if is_in_place(options.method):
        settings["learning_rate"] = FULL_LEARNING_RATE
    own = given(options.training, *(f.name for f in fields(TrainingOptions)))
    if own.get("max_length") == AUTO:
        del own["max_length"]
    if own.get("head") == "random":
        own.setdefault("head_learning_rate", RANDOM_HEAD_RATE)
    return TrainingSettings.from_dict(settings | own, "training settings")


def _check_methods(options: TrainOptions, run: Run | None) -> None:
    """Refuse methods that the backbone cannot take, from its config, before its weights are read."""
    if options.method == HEAD or is_in_place(options.method):
        return
    backbone = preview(_model(options, run))
    design = None if run is None else run.found.design
    names = [options.method] if options.method else [m for group in design.methods for m in group] if design else []
    if {"ipt", "prompt"} <= set(names):
        raise ConfigError(
            "ipt and prompt: a training saves ipt as a prompt, and there is one already; take one of them"
        )
    if backbone is not None:
        require_methods(names, backbone)


def _packing(options: TrainOptions, run: Run | None) -> tuple[str | None, tuple[str, ...]]:
    """How the frozen weights are packed: as the run's, unless the options say otherwise; and what to tell the user."""
    if options.quantize is not None:
        return (None if options.quantize == PLAIN else options.quantize), ()
    quantize = None if run is None else run.found.quantize
    if quantize is not None and is_in_place(options.method):
        return None, (f"--method {options.method} trains weights of full precision, not the run's {quantize}",)
    return quantize, ()


def _model(options: TrainOptions, run: Run | None) -> TunedModelOptions:
    """The model that is named, or else the run's, with the run's subspace."""
    model = options.model
    if run is not None and model.subspace is None:
        model = replace(model, subspace=kept_subspace(run.path.parent, run.found.architecture))
    if run is None or model.name is not None:
        return model
    return replace(model, name=run.found.model_name, revision=model.revision or hub_commit(run.found.revision))


def _architecture(
    options: TrainOptions, run: Run | None, loaded: LoadedBackbone
) -> tuple[Design | None, Architecture | Reference, str | None, tuple[str, ...]]:
    """Design, architecture, budget, and what the user should know of them."""
    backbone = loaded.backbone
    if options.method is not None and is_in_place(options.method):
        return None, make_reference(options.method, loaded, "--method"), None, ()
    if options.method == HEAD:
        return uniform(), Architecture(placements=()), None, ()
    budget = options.budget or (run.budget if run is not None else None)
    assert budget is not None, "the options are checked"
    if options.method is not None:
        design = uniform(options.method)
        architecture = fit(design, backbone, parse_budget(budget, backbone.n_params))
    else:
        assert run is not None, "without a method there is a best.yaml"
        design = run.found.design
        if _is_same(run, loaded):
            same = run.found.revision == backbone.revision
            told = () if same else (f"the weights of {backbone.name} are not those that the design was found on",)
            return design, run.found.architecture, run.budget, told
        if options.model.name is None:
            require_same_backbone(run.found, backbone)
            raise ConfigError(
                f"{run.path}: was found on a model of {run.n_params:,} parameters, and {backbone.name} has "
                f"{backbone.n_params:,}; name it with --model to resize the design"
            )
        architecture = carry_over(run.found, backbone, parse_budget(budget, backbone.n_params))
    note = f"fitted to {backbone.name} under {budget}: {architecture.n_params:,} parameters"
    return design, architecture, budget, (note,)


def _is_same(run: Run, loaded: LoadedBackbone) -> bool:
    """Whether a model has the blocks that an architecture was made for."""
    own = loaded.backbone
    return (run.found.model_type, run.found.stacks, run.n_params) == (own.model_type, own.depths, own.n_params)
