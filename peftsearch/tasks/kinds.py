"""Name the kinds of task."""

from __future__ import annotations

from typing import Literal

Kind = Literal["classification", "regression", "generation"]
Asked = Literal["classification", "regression", "generation", "image"]
"""What a user may ask for; `image` is a classification of images."""
