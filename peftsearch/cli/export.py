"""`peftsearch export`: write a found architecture in the format of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from peftsearch.exporter.options import ExportOptions
from peftsearch.exporter.write import Format, write_export


def export(
    what: Path,
    /,
    *,
    format: Format,
    output: Path,
    overwrite: bool = False,
    options: Annotated[ExportOptions | None, Parameter(name="*")] = None,
) -> int:
    """Export a found architecture to other tools.

    Args:
        what: A run's folder, its best.yaml, or a folder made by peftsearch.save.
        format: Format to write.
        output: Folder to create.
        overwrite: Replace the contents of the folder.
        options: Which parameters to export, and where the backbone is.
    """
    for line in write_export(what, form=format, output=output, overwrite=overwrite, options=options):
        print(line)
    return 0
