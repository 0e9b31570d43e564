"""`peftsearch worker`: join a run that another process started."""

from __future__ import annotations

import sys
from pathlib import Path


def worker(run: Path, /, *, storage: str = "", device: str | None = None) -> int:
    """Join a run that another process started.

    Args:
        run: The run's folder; created if only --storage is shared.
        storage: The run's Optuna storage URL (default: SQLite in the folder).
        device: cpu, cuda or cuda:1 (default: cuda if available).
    """
    from peftsearch.searcher.options import read_options

    options = read_options(run, storage)  # refuses a missing run before anything heavy is imported
    from peftsearch.searcher.progress import PlainReporter
    from peftsearch.searcher.run import join_study

    print(join_study(options, device, PlainReporter(sys.stdout)))
    return 0
