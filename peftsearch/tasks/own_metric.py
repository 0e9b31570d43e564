"""Metrics of the user's own, in the manner of `compute_metrics` of transformers' Trainer.

Such a function takes a `transformers.EvalPrediction` (`predictions`: logits `(n, classes)`, or targets `(n,)` of a
regression, in float32; `label_ids`: class indices or targets `(n,)`; for a generation the texts, and the references of
each) and returns a number, or a mapping whose first value is the score. Larger is better. Its name is
`module:function`, so that other processes can import it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peftsearch.catalog import load_object
from peftsearch.errors import ConfigError, TaskError, one_line

Numbers = Sequence[int] | Sequence[float]
_DIGEST = "#"
"""Sign before the digest in the name of a function that cannot be imported."""
_REGISTERED: dict[str, Callable[[Any], Any]] = {}
"""Functions of this process that cannot be imported, such as those of a notebook, by name."""


def is_own(name: str) -> bool:
    """Whether a name is `module:function`."""
    return ":" in name


def is_of_session(name: str) -> bool:
    """Whether a name is that of a function which other processes cannot import."""
    return _DIGEST in name


def short_name(metric: str) -> str:
    """Name of a metric for readers: the function alone, without its module."""
    return metric.rpartition(":")[2].partition(_DIGEST)[0].rpartition(".")[2]


def register(function: Callable[[Any], Any]) -> tuple[str, bool]:
    """Name a function; one that cannot be imported has a digest of its code in its name.

    Args:
        function: The metric.

    Returns:
        Its name, and whether other processes can import it.

    Raises:
        TaskError: It is a callable without a name, such as a partial.
    """
    module, qualified = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(qualified, str) or not hasattr(function, "__code__"):
        raise TaskError(f"metric {one_line(function, 60)}: give a function, `def` or lambda; it has no name of its own")
    if module != "__main__" and "<" not in qualified and "." not in qualified:
        return f"{module}:{qualified}", True
    name = f"{module}:{qualified}{_DIGEST}{_digest(function)}"
    _REGISTERED[name] = function
    return name, False


def _digest(function: Any) -> str:
    """Digest of a function's code and of what it closes over, as far as that prints the same."""
    code = function.__code__
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = (code.co_code.hex(), code.co_names, [repr(c) for c in code.co_consts if not hasattr(c, "co_code")], cells)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def load_own(name: str) -> Callable[[Any], Any]:
    """The function of a name.

    Raises:
        TaskError: It cannot be imported, or is not a function.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if is_of_session(name):
        raise TaskError(
            f"metric {short_name(name)}: was a function of another session; put it into a module, or call "
            "peftsearch.search with it again"
        )
    try:
        found = load_object(name)
    except ConfigError as error:
        hint = "give module:function of a module on the path, or the name of a metric"
        raise TaskError(f"metric {error}; {hint}") from error
    if not callable(found):
        raise TaskError(f"metric {name}: is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]  # a user's function


def score_own(name: str, outputs: Any, labels: Any) -> float:
    """Score a model's outputs by the user's function.

    Args:
        name: `module:function`.
        outputs: Logits `(n, classes)` or targets `(n,)`; of tags, one row for each word.
        labels: Class indices or targets `(n,)`, or a 1 or 0 for every class `(n, classes)`.

    Raises:
        TaskError: The function fails, or does not return a finite number.
    """
    import numpy as np

    return call_own(name, np.asarray(outputs, dtype=np.float32), np.asarray(labels))


def call_own(name: str, predictions: Any, references: Any) -> float:
    """Call the user's function.

    Args:
        name: `module:function`.
        predictions: Outputs of the model, or its texts.
        references: Labels, or the references of each text.

    Raises:
        TaskError: The function fails, or does not return a finite number.
    """
    from transformers import EvalPrediction

    given = EvalPrediction(predictions=predictions, label_ids=references)
    function = load_own(name)
    try:
        value = function(given)
        value = next(iter(value.values())) if isinstance(value, Mapping) else value
        number = float(value)
    except Exception as error:  # a user's function may raise anything
        raise TaskError(f"metric {name}: failed: {type(error).__name__}: {one_line(error)}") from error
    if not math.isfinite(number):
        raise TaskError(f"metric {name}: returned {number}; a finite number is needed")
    return number
