"""Checks of the names of a model, a device and a precision that need neither torch nor transformers."""

from __future__ import annotations

import re

from peftsearch.backbone.demo import DEMO
from peftsearch.backbone.folder import find_folder
from peftsearch.errors import ConfigError, unknown_name
from peftsearch.files import read_yaml
from peftsearch.options import MachineOptions, ModelOptions, TunedModelOptions

DTYPES = {"auto": None, "fp32": "float32", "float32": "float32", "bf16": "bfloat16", "bfloat16": "bfloat16"}
"""torch's name of each precision; None for `auto`."""
DEVICE_MAPS = ("auto", "balanced", "sequential")


def check_model(options: ModelOptions) -> None:
    """Check that a model's name can be one, and that its folder and its description can be read.

    Raises:
        BackboneError: The name is neither that of a folder with a model nor of the form of a hub id.
        ConfigError: The description is no YAML mapping, the device map is unknown, or the subspace is no file.
    """
    if options.name not in (None, "demo", DEMO):
        find_folder(str(options.name))
    if options.device_map not in (None, *DEVICE_MAPS):
        raise ConfigError(unknown_name("device map", options.device_map, DEVICE_MAPS))
    if options.anatomy is not None:
        read_yaml(options.anatomy)
    if isinstance(options, TunedModelOptions) and options.subspace is not None and not options.subspace.is_file():
        raise ConfigError(f"--subspace {options.subspace}: no such file; make one with `peftsearch subspace`")


def check_machine(options: MachineOptions) -> None:
    """Check the names of the device and the precision; whether the machine has them is found out later.

    Raises:
        ConfigError: A name is unknown.
    """
    check_device_name(options.device)
    check_dtype_name(options.dtype)


def check_device_name(name: str | None) -> None:
    """Check the form of a device's name.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in (None, "auto", "cpu") and not re.fullmatch(r"cuda(?::(\d{1,4}))?", str(name)):
        raise ConfigError(unknown_name("device", name, ("auto", "cpu", "cuda", "cuda:N")))


def check_dtype_name(name: str | None) -> None:
    """Check the name of a precision.

    Raises:
        ConfigError: The name is unknown.
    """
    if name is not None and name not in DTYPES:
        raise ConfigError(unknown_name("dtype", name, DTYPES))
