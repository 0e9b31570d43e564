"""Automated search for parameter-efficient fine-tuning.

Names are imported on first use, so that `import peftsearch` and `peftsearch --help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from peftsearch.api.injecting import inject
    from peftsearch.api.result import Result, open_run
    from peftsearch.api.search import search
    from peftsearch.api.trainer import Trainer
    from peftsearch.api.training import evaluate, export, predict, train
    from peftsearch.backbone.describe import describe
    from peftsearch.backbone.detect import detect
    from peftsearch.design.architecture import Architecture
    from peftsearch.design.budget import Budget, parse_budget
    from peftsearch.design.design import Design
    from peftsearch.design.fitting import fit
    from peftsearch.engine.priming import prime
    from peftsearch.errors import PeftSearchError
    from peftsearch.injection.checkpoint import load, save
    from peftsearch.injection.extra_loss import extra_loss
    from peftsearch.injection.inject import param_groups, remove
    from peftsearch.injection.reducing import reduce
    from peftsearch.injection.states import load_state, save_state
    from peftsearch.study.refitting import refit

_MODULES = {
    "api.injecting": ("inject",),
    "api.result": ("Result", "open_run"),
    "api.search": ("search",),
    "api.trainer": ("Trainer",),
    "api.training": ("evaluate", "export", "predict", "train"),
    "backbone.describe": ("describe",),
    "backbone.detect": ("detect",),
    "design.architecture": ("Architecture",),
    "design.budget": ("Budget", "parse_budget"),
    "design.design": ("Design",),
    "design.fitting": ("fit",),
    "engine.priming": ("prime",),
    "errors": ("PeftSearchError",),
    "injection.checkpoint": ("load", "save"),
    "injection.extra_loss": ("extra_loss",),
    "injection.inject": ("param_groups", "remove"),
    "injection.reducing": ("reduce",),
    "injection.states": ("load_state", "save_state"),
    "study.refitting": ("refit",),
}
_LAZY = {name: f"peftsearch.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "Architecture",
    "Budget",
    "Design",
    "PeftSearchError",
    "Result",
    "Trainer",
    "__version__",
    "describe",
    "detect",
    "evaluate",
    "export",
    "extra_loss",
    "fit",
    "inject",
    "load",
    "load_state",
    "open_run",
    "param_groups",
    "parse_budget",
    "predict",
    "prime",
    "reduce",
    "refit",
    "remove",
    "save",
    "save_state",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'peftsearch' has no attribute {name!r}")
