"""Record which process runs a trial, so that trials of dead processes are rerun and running trials are left alone.

Every running trial names its owner: host, process, start of the process, and opening of the study. On the owner's host,
the process table tells whether the owner is alive; on other hosts, Optuna's heartbeat does, which every owner records
while a trial runs. A trial whose owner is dead fails as interrupted: it counts for nothing, and its place is free for a
retry. A trial that repeatedly loses its process is recorded as failed, so that a design that crashes its process is not
retried forever.

All of this happens inside `StudyFolder.claim`, which one process at a time holds.
"""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState

from peftsearch.study.private_optuna import fail_trial, silent_trials
from peftsearch.study.trials import TrialFacts, facts_of, write_facts_of

HEARTBEAT_S = 20
"""Seconds between two heartbeats."""
GRACE_S = 120
"""Seconds without a heartbeat after which an owner on another host counts as dead."""
MAX_LOSSES = 3
"""Number of lost processes after which a trial is recorded as failed."""


def new_owner() -> str:
    """Text that identifies this process and this opening of a study."""
    return " ".join([_host(), str(os.getpid()), _started(os.getpid()), uuid.uuid4().hex[:12]])


def is_dead(owner: str, own: str) -> bool | None:
    """Whether an owner can no longer finish its trial.

    Args:
        owner: Owner of the trial.
        own: Owner that asks; an earlier opening of the study by the same process counts as dead.

    Returns:
        None if this host cannot tell.
    """
    try:
        host, pid, started, _ = owner.split()
    except ValueError:
        return True
    if owner == own:
        return False
    if host != _host():
        return None
    if int(pid) == os.getpid():
        return True
    return _started(int(pid)) != started


def release_dead(study: optuna.Study, own: str) -> int:
    """Fail the trials that dead processes left running, so that they are rerun.

    Returns:
        Number of these trials.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if not running:
        return 0
    silent = silent_trials(study)
    n_dead = 0
    for trial in running:
        owner = facts_of(trial).owner
        dead = True if owner is None else is_dead(owner, own)
        if dead or (dead is None and trial.number in silent):
            # Its process may have recorded the end and exited since the trials were listed.
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                release(study, trial, "its process ended while it ran")
                n_dead += 1
    return n_dead


def release(study: optuna.Study, trial: FrozenTrial, reason: str, by_user: bool = False) -> bool:
    """Fail a running trial as interrupted, or for good if it was lost too often.

    Args:
        study: The study of the trial.
        trial: A running trial.
        reason: Cause, for the record.
        by_user: Whether the user stopped the trial; such a stop does not count as a loss.

    Returns:
        Whether the trial will be rerun.
    """
    n_losses = 1 + sum(_is_same(t, trial) for t in study.get_trials(deepcopy=False))
    again = by_user or n_losses < MAX_LOSSES
    told = reason if again else f"{reason}, {n_losses} times; it is not tried again"
    marks = TrialFacts(reason=told, interrupted=again or None, by_user=(again and by_user) or None)
    write_facts_of(study, trial, marks)
    fail_trial(study, trial)
    return again


def _is_same(earlier: FrozenTrial, trial: FrozenTrial) -> bool:
    """Whether an earlier trial was lost at the same work; False for a trial that never got a name."""
    one, other = facts_of(earlier), facts_of(trial)
    if other.name is None or not one.interrupted or one.by_user:
        return False
    return (one.name, one.design, one.seed) == (other.name, other.design, other.seed)


def _started(pid: int) -> str:
    """Start of a process, which distinguishes it from a later one with the same number; `-` if none runs.

    The start is in ticks since boot where the system reports them, because a time of day changes when the clock is set.
    A zombie, whose parent has not reaped it yet, trains nothing and counts as ended.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _created(pid)
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "-" if state in {"Z", "X"} else fields[18]


def _created(pid: int) -> str:
    """Start of a process on systems without /proc; `-` if none runs."""
    try:
        process = psutil.Process(pid)
        return "-" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return "-"


@lru_cache(maxsize=1)
def _host() -> str:
    """This host, boot and namespace of process numbers: containers may share the first two."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:
        parts.append(f"{psutil.boot_time():.0f}")
    return "/".join(parts).replace(" ", "_")
