"""How many processes train side by side, and that they end with the one that started them."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from optuna.trial import TrialState

from peftsearch.searcher import crew
from tests.runs import arguments, kill_after, start, study


@pytest.mark.parametrize(
    ("asked", "device", "seconds", "threads", "room", "width"),
    [
        (None, "cpu", 600, 2, 100, 2),
        (None, "cpu", 600, 64, 1000, 8),
        (None, "cpu", 600, 1, 100, 1),
        (None, "cpu", 30, 16, 100, 1),
        (None, "cuda", 600, 16, 100, 4),
        (None, "cuda", 30, 16, 100, 1),
        (None, "cuda:1", 600, 16, 100, 1),
        (None, "cpu", 600, 16, 6, 3),
        (None, "cpu", 600, 16, 1, 1),
        (5, "cuda", 30, 1, 1, 5),
    ],
)
def test_as_many_processes_as_threads_and_memory_allow_where_they_pay(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, device: str, seconds: float, threads: int, room: int, width: int
) -> None:
    """Memory is that of `room` processes like this one."""
    own = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=10))
    monkeypatch.setattr(crew.psutil, "Process", lambda: own)
    monkeypatch.setattr(crew.psutil, "virtual_memory", lambda: SimpleNamespace(available=10 * room))
    monkeypatch.setattr(crew.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(crew.torch.cuda, "device_count", lambda: 4)
    assert crew.choose_width(asked, torch.device(device), seconds) == width


def test_each_gpu_gets_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew.torch.cuda, "device_count", lambda: 3)
    assert crew.devices_of(torch.device("cuda"), 5) == ["cuda:1", "cuda:2", "cuda:0", "cuda:1", "cuda:2"]
    assert crew.devices_of(torch.device("cuda:2"), 2) == ["cuda:2", "cuda:2"]
    assert crew.devices_of(torch.device("cpu"), 2) == ["cpu", "cpu"]


def _attached(folder: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if {"--attached", folder} <= set(p.info["cmdline"] or ())]


def _soon(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(condition())


@pytest.mark.slow
def test_two_processes_share_a_run_end_with_it_and_a_killed_one_is_told(place, tmp_path) -> None:
    _, model, files = place
    argv = arguments(model, files, tmp_path, "--workers", "2", "--steps", "60", "--search-steps", "30")
    folder = str(tmp_path / "r")
    first = start(argv)
    assert any("Plan:" in line for line in first.stdout)
    assert _soon(lambda: _attached(folder))
    kill_after(first, "lora ")
    assert _soon(lambda: not _attached(folder)), "the further process outlives the one that started it"

    again = start(argv)
    assert _soon(lambda: len([t for t in study(tmp_path / "r").trials if "owner" in t.user_attrs]) > 3, 60)
    [other] = _attached(folder)
    other.send_signal(signal.SIGKILL)
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0
    assert f"{folder}/worker-1.log: a further process ended, and the others go on: it was killed" in said
    done = [t for t in study(tmp_path / "r").trials if t.state == TrialState.COMPLETE]
    assert len({t.user_attrs["name"] for t in done}) == len(done)
    assert not _attached(folder)
