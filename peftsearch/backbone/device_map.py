"""Models that are spread over several GPUs by a device map of accelerate."""

from __future__ import annotations

from typing import Any

import torch

from peftsearch.backbone.named import DEVICE_MAPS
from peftsearch.errors import BackboneError, ConfigError, unknown_name


def check_map(device_map: str | None, device: torch.device) -> None:
    """Refuse a device map that is unknown, or beside a device with a number.

    Raises:
        ConfigError: It is one of these.
    """
    if device_map is None:
        return
    if device_map not in DEVICE_MAPS:
        raise ConfigError(unknown_name("device map", device_map, DEVICE_MAPS))
    if device.type == "cpu" and torch.cuda.is_available():
        raise ConfigError(f"--device-map {device_map} takes the GPUs; leave --device cpu out")
    if device.index is not None:
        raise ConfigError(f"--device-map {device_map} takes all GPUs; leave --device {device} out")


def require_on_gpus(name: str, model: Any, device: torch.device) -> None:
    """Refuse a model of which a part found no room on the GPUs: weights that lie elsewhere cannot be trained through.

    Raises:
        BackboneError: A part lies on the CPU or the disk.
    """
    away = [path for path, place in getattr(model, "hf_device_map", {}).items() if place in ("cpu", "disk")]
    if away and device.type != "cpu":
        raise BackboneError(
            f"model {name!r}: {len(away)} of its parts do not fit on the GPUs (first: {away[0]}); pack it with "
            "--quantize nf4, or take more GPUs"
        )
