"""`peftsearch predict`: a label or a text for every row of a file, or every image of a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from peftsearch.trainer.options import PredictOptions


def predict(folder: Path, /, options: Annotated[PredictOptions, Parameter(name="*")]) -> int:
    """Predict a label or a text for every row of a file, or every image of a folder.

    Args:
        folder: The --output of `peftsearch train`.
        options: What to predict, and how to load the model.
    """
    from peftsearch.trainer import prediction

    n = prediction.predict(replace(options, folder=folder))
    print(f"{n} predictions: {options.output}")
    return 0
