"""`peftsearch worker`: take part in a run that another process began."""

from __future__ import annotations

import sys
from pathlib import Path


def worker(run: Path, /, *, storage: str = "", device: str | None = None) -> int:
    """Take part in a run that another process began.

    Args:
        run: The run's folder; made where only --storage is shared.
        storage: The run's Optuna storage, where it has its own.
        device: cpu, cuda or cuda:1 (default: cuda where there is one).
    """
    from peftsearch.searcher.options import read_options

    read_options(run, storage)  # a run that is not there is refused before anything heavy is imported
    from peftsearch.searcher.progress import PlainReporter
    from peftsearch.searcher.run import join_study

    print(join_study(run, storage, device, PlainReporter(sys.stdout)))
    return 0
