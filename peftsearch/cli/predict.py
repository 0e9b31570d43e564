"""`peftsearch predict`: predict a label or a text for every row of a file, or every image of a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from peftsearch.trainer.folder import read_training
from peftsearch.trainer.options import PredictOptions, check_predict_options
from peftsearch.units import plural


def predict(folder: Path, /, options: Annotated[PredictOptions, Parameter(name="*")]) -> int:
    """Predict a label or a text for every row of a file, or every image of a folder.

    Args:
        folder: The --output of `peftsearch train`.
        options: The data to predict, and how to load the model.
    """
    check_predict_options(options)
    read_training(folder)  # refuses a missing training before anything heavy is imported
    from peftsearch.trainer import prediction

    n = prediction.predict(replace(options, folder=folder))
    print(f"{plural(n, 'prediction')}: {options.output}")
    return 0
