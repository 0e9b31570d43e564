"""Automated search for parameter-efficient fine-tuning.

Names are imported on first use, so that `import peftsearch` and `peftsearch --help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Architecture": "peftsearch.design.architecture",
    "Design": "peftsearch.design.design",
    "Budget": "peftsearch.design.budget",
    "parse_budget": "peftsearch.design.budget",
    "detect": "peftsearch.backbone.detect",
    "describe": "peftsearch.backbone.describe",
    "fit": "peftsearch.design.fitting",
    "inject": "peftsearch.api",
    "save": "peftsearch.injection.checkpoint",
    "load": "peftsearch.injection.checkpoint",
    "refit": "peftsearch.study.refitting",
    "remove": "peftsearch.injection.inject",
    "param_groups": "peftsearch.injection.inject",
    "prime": "peftsearch.engine.priming",
    "extra_loss": "peftsearch.injection.extra_loss",
    "reduce": "peftsearch.injection.reducing",
    "save_state": "peftsearch.injection.states",
    "load_state": "peftsearch.injection.states",
    "PeftSearchError": "peftsearch.errors",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'peftsearch' has no attribute {name!r}")
