"""The choice of device and precision, which only this module makes."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from peftsearch.backbone.named import DTYPES, check_device_name, check_dtype_name
from peftsearch.errors import ConfigError

_LOOK_S = 0.3
"""Seconds in which the load of the cores is looked at."""


def choose_device(name: str | None = None) -> torch.device:
    """Choose the device.

    Args:
        name: `cpu`, `cuda`, `cuda:N`, or None or `auto` for CUDA if available.

    Raises:
        ConfigError: The name is unknown, or the device does not exist.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in (None, "auto"):
        return torch.device("cuda" if n_gpus else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    check_device_name(name)
    if int(str(name).partition(":")[2] or 0) >= n_gpus:
        raise ConfigError(f"device {name!r}: torch {torch.__version__} sees {n_gpus} CUDA devices; use cpu or auto")
    return torch.device(str(name))


def settle_threads(asked: int | None, device: torch.device, begun: int | None = None) -> tuple[str, ...]:
    """Choose the number of threads that this process computes with, before its first step.

    Threads that wait for one another spin, and beside other busy processes a step with all cores takes many times as
    long as with those that are free.

    Args:
        asked: Number of threads; None takes the cores that are free, where the environment does not say.
        device: Where the model is.
        begun: Number that a study or a training on disk began with. It goes on with as many, since sums over other
            parts differ in their last bits.

    Returns:
        A note if fewer threads are used than there are cores.

    Raises:
        ConfigError: The number is below 1.
    """
    if asked is not None:
        if asked < 1:
            raise ConfigError(f"--threads must be at least 1, got {asked}")
        torch.set_num_threads(asked)
        return ()
    most = _own_threads()
    if device.type != "cpu" or most == 1 or any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        return ()
    n = max(1, min(most, begun or round(_free_cores())))
    torch.set_num_threads(n)
    if n == most or begun is not None:
        return ()
    return (
        f"{n} of {most} threads are used, since other processes keep the other cores busy (--threads {most} takes all)",
    )


@cache
def _own_threads() -> int:
    """The number of threads that torch chose for this process, before any other choice."""
    return torch.get_num_threads()


def _free_cores() -> float:
    """How many cores no process uses, over a short while in which this one waits."""
    import psutil

    return float((psutil.cpu_count() or 1) * (1 - psutil.cpu_percent(interval=_LOOK_S) / 100))


def choose_dtype(device: torch.device, name: str | None = None) -> torch.dtype | None:
    """Choose the reduced precision of the forward pass.

    Args:
        device: Device of the forward pass.
        name: `fp32`, `bf16`, or None or `auto`: bf16 on CUDA devices that support it and on CPUs with AMX, where a step
            takes about half of its time in fp32; else fp32.

    Returns:
        The dtype for autocast; None for plain fp32.

    Raises:
        ConfigError: The name is unknown, or the device has no fast bf16.
    """
    check_dtype_name(name)
    wanted = DTYPES[name or "auto"]
    if wanted is None:
        fast = _has_fast_bf16(device) if device.type == "cuda" else _has_amx()
        return torch.bfloat16 if fast else None
    if wanted == "float32":
        return None
    if not _has_fast_bf16(device):
        raise ConfigError(f"dtype {name!r}: {hardware(device)} has no fast bf16; use fp32")
    return torch.bfloat16


def _has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 runs in hardware; a CPU without AVX512-BF16 or AMX emulates it, 25 times slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool({"avx512_bf16", "amx_bf16", "amx_tile"} & _cpu_flags())


def _has_amx() -> bool:
    """Whether the CPU multiplies bf16 matrices in tiles; AVX512-BF16 alone gains little or nothing over fp32."""
    return {"amx_bf16", "amx_tile"} <= _cpu_flags()


def suit_attention(model: Any, device: torch.device, autocast: torch.dtype | None) -> None:
    """Choose the attention implementation that trains fastest; models with their own keep it.

    The backward pass of `scaled_dot_product_attention` is slow in bf16 on a CPU: it takes half of a step there.

    Args:
        model: A transformers model.
        device: Where it is.
        autocast: Reduced precision of the forward pass, or None.
    """
    if device.type == "cpu" and autocast is torch.bfloat16:
        with suppress(ValueError, AttributeError, ImportError):
            model.set_attn_implementation("eager")


def _cpu_flags() -> set[str]:
    match = re.search(r"^flags\s*:(.*)$", _cpu_info(), re.MULTILINE)
    return set(match[1].split()) if match else set()


def _cpu_info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def hardware(device: torch.device | None = None) -> str:
    """Describe the hardware: the GPU's name, or the CPU's model and number of cores.

    Args:
        device: The device; None for the one that `choose_device` takes.
    """
    device = device or choose_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    match = re.search(r"^model name\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    model = match[1].strip() if match else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{model}, {cores} core{'s' if cores != 1 else ''}"
