"""Further processes on this machine that train trials of a study beside this one.

On a CPU a training of a small model leaves most cores idle, however many threads it has: several trainings with few
threads each get through a search sooner; and each GPU gets a process. Every further process is a `peftsearch worker` on
the same folder; it ends with the process that started it, whatever ends that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from peftsearch.errors import one_line

MOST = 8
"""Most processes that are started without being asked for."""
_WORTH_S = 120.0
"""Seconds of work below which no further process pays for its start."""
_ROOM = 0.5
"""Share of the free memory that further processes may take, each 1.5 times as much as this one has now."""
_ENDING_S = 20.0
"""Seconds that a process has to record what it was doing."""


def choose_width(asked: int | None, device: torch.device, seconds: float) -> int:
    """How many processes train side by side, this one included.

    Args:
        asked: Number that the user wants; None chooses, where it pays, as many as there are GPUs, or on a CPU threads
            and room.
        device: Where the model is.
        seconds: Expected time of the work in one process.
    """
    if asked is not None:
        return asked
    if seconds < _WORTH_S:
        return 1
    if device.type == "cuda":
        return 1 if device.index is not None else max(1, torch.cuda.device_count())
    own = psutil.Process().memory_info().rss
    room = int(_ROOM * psutil.virtual_memory().available / (1.5 * own))
    return max(1, min(MOST, torch.get_num_threads(), 1 + room))


def devices_of(device: torch.device, n: int) -> list[str]:
    """Devices of n further processes: the GPUs in turn, after the first, which is this process's; or all the same."""
    if device.type != "cuda" or device.index is not None:
        return [str(device)] * n
    n_gpus = max(1, torch.cuda.device_count())
    return [f"cuda:{(i + 1) % n_gpus}" for i in range(n)]


@contextmanager
def crew(folder: Path, devices: Sequence[str], storage: str) -> Iterator[Callable[[], list[str]]]:
    """Run further processes on a study while the context lasts.

    Args:
        folder: The study's folder, where each writes what it does into `worker-N.log`.
        devices: Device of each process.
        storage: The study's storage URL; empty for SQLite in the folder.

    Yields:
        A function that gives one line for each process that failed since it was last called.
    """
    words = [sys.executable, "-m", "peftsearch", "worker", str(folder), "--attached"]
    words += ["--storage", storage] if storage else []
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "MKL_NUM_THREADS": str(torch.get_num_threads())}
    running: list[subprocess.Popen[bytes]] = []
    said: set[int] = set()
    try:
        for i, device in enumerate(devices):
            with (folder / f"worker-{i + 1}.log").open("ab") as log:
                running.append(
                    subprocess.Popen(  # a session of its own, so that Ctrl-C reaches only this process
                        [*words, "--device", device],
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        env={**os.environ, **threads},
                        start_new_session=True,
                    )
                )
        yield lambda: _failed(running, folder, said)
    finally:
        _end(running)


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    """Ask processes that still run to stop, and kill those that do not."""
    left = [process for process in running if process.poll() is None]
    for process in left:
        process.send_signal(signal.SIGINT)
    for process in left:
        try:
            process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for process in running:
        if process.stdin is not None:
            process.stdin.close()


def _failed(running: Sequence[subprocess.Popen[bytes]], folder: Path, said: set[int]) -> list[str]:
    """What processes that failed wrote last; those in `said` are left out, and the others are added to it."""
    lines = []
    for i, process in enumerate(running):
        if process.poll() and i not in said:
            said.add(i)
            log = folder / f"worker-{i + 1}.log"
            written = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            how = one_line(written[-1], 200) if written and process.returncode > 0 else "it was killed"
            lines.append(f"{log}: a further process ended, and the others go on: {how}")
    return lines
