"""Silence of the libraries that load models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress progress bars, warnings about the new head, and the hub bot's conversion of pickles."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as library

    level, bar, hub_bar = library.get_verbosity(), library.is_progress_bar_enabled(), not are_progress_bars_disabled()
    conversion = os.environ.get("DISABLE_SAFETENSORS_CONVERSION")
    library.set_verbosity_error()
    library.disable_progress_bar()
    disable_progress_bars()
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if bar:
            library.enable_progress_bar()
        if hub_bar:
            enable_progress_bars()
        if conversion is None:
            del os.environ["DISABLE_SAFETENSORS_CONVERSION"]
        else:
            os.environ["DISABLE_SAFETENSORS_CONVERSION"] = conversion
