"""`peftsearch worker`: join a run that another process started."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path


def worker(run: Path, /, *, storage: str = "", device: str | None = None, attached: bool = False) -> int:
    """Join a run that another process started.

    Args:
        run: The run's folder; created if only --storage is shared.
        storage: The run's Optuna storage URL (default: SQLite in the folder).
        device: cpu, cuda or cuda:1 (default: cuda if available).
        attached: End when standard input closes, as when the process that started this one ends.
    """
    if attached:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        threading.Thread(target=_end_with_input, daemon=True).start()
    from peftsearch.searcher.options import read_options

    options = read_options(run, storage)  # refuses a missing run before anything heavy is imported
    from peftsearch.searcher.progress import PlainReporter
    from peftsearch.searcher.run import join_study

    print(join_study(options, device, PlainReporter(sys.stdout)))
    return 0


def _end_with_input() -> None:
    """End this process at once when standard input closes; its trial is rerun as after any kill."""
    while os.read(0, 1):  # not through `sys.stdin`, whose lock this thread would hold when the process ends
        pass
    os._exit(1)
