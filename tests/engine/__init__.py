"""An engine on a tiny model and task, always the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from peftsearch.backbone.load import LoadedBackbone, load_backbone
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.settings import TrainingSettings
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite
from tests.runs import save_model, save_task


def make_engine(settings: TrainingSettings | None = None) -> tuple[LocalEngine, LoadedBackbone]:
    """A new engine and its backbone; two calls give equal ones."""
    with tempfile.TemporaryDirectory() as folder:
        train, validation = save_task(Path(folder))
        task = resolve_task(TaskOptions(train=train, validation=validation))
        torch.manual_seed(0)
        loaded = load_backbone(save_model(Path(folder) / "model"), num_labels=task.num_labels)
    data = encode(task, loaded.tokenizer, max_length=32)
    settings = settings or TrainingSettings(batch_size=8)
    return LocalEngine(loaded, Suite(tasks=(task,)), (data,), settings, torch.device("cpu"), None), loaded
