"""Kinds of tasks."""

from __future__ import annotations

from typing import Literal

Kind = Literal["classification", "regression", "generation"]
