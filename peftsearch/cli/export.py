"""`peftsearch export`: read the source, refuse what the format cannot hold, load, write whole or not at all."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from peftsearch.errors import CheckpointError
from peftsearch.exporter.formats import FORMATS, require_format
from peftsearch.exporter.source import Exportable, ExportOptions, read_source
from peftsearch.files import check_output, staged


def export_arguments(arguments: argparse.Namespace) -> int:
    """Run the command with what the command line was given."""
    options = ExportOptions(**{f.name: getattr(arguments, f.name) for f in fields(ExportOptions)})
    return export(arguments.what, arguments.format, arguments.output, arguments.overwrite, options)


def export(what: Path, form: str, output: Path, overwrite: bool, options: ExportOptions) -> int:
    """Write what was found in a format of other tools.

    Args:
        what: A run's folder, its `best.yaml`, or a folder of `peftsearch.save`.
        form: One of `FORMATS`.
        output: The folder to make.
        overwrite: Whether it may exist.
        options: Where parameters and backbone come from.

    Returns:
        The exit status, 0.

    Raises:
        PeftSearchError: What is wrong with the source, the format or the output; nothing is written then.
    """
    check_output(output, overwrite)
    source = read_source(what, options)
    _require_other(output, what)
    require_format(form, source.architecture)
    exportable = source.open(weights=form != "adapters")
    model: Any = exportable.injection.model
    _require_other(output, Path(str(model.config.name_or_path or ".")))
    with staged(output, overwrite) as stage:
        lines = _writer(form)(exportable, stage)
    for line in [*lines, f"Parameters of: {exportable.origin}", f"Folder: {output}"]:
        print(line)
    return 0


def _require_other(output: Path, source: Path) -> None:
    """Never write over what is being read, not even when asked to overwrite."""
    if output.resolve() == source.resolve():
        raise CheckpointError(f"{output}: is what is exported from; name another folder")


def _writer(form: str) -> Callable[[Exportable, Path], list[str]]:
    if form == "peft":
        from peftsearch.exporter.hf_peft import write_peft

        return write_peft
    if form == "merged":
        from peftsearch.exporter.plain import write_merged

        return write_merged
    if form == "adapters":
        from peftsearch.exporter.adapterhub import write_adapters

        return write_adapters
    assert form in FORMATS, form
    return _write_own


def _write_own(source: Exportable, directory: Path) -> list[str]:
    from peftsearch.injection.checkpoint import write_checkpoint

    write_checkpoint(source.injection, directory, source.injection.injected.task)
    return ["peftsearch: peftsearch.load(None, DIR) loads model and parameters, peftsearch.load(model, DIR) into yours"]
