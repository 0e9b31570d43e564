"""Write a found architecture in the format of another tool, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftsearch.errors import CheckpointError
from peftsearch.exporter.formats import FORMATS, require_format
from peftsearch.exporter.hub import check_repository, push
from peftsearch.exporter.options import ExportOptions, require_source
from peftsearch.files import check_output, staged

if TYPE_CHECKING:
    from peftsearch.exporter.source import Exportable

README = "README.md"
Format = Literal["peft", "adapters", "merged", "peftsearch"]


def write_export(
    what: Path, *, form: Format, output: Path, overwrite: bool = False, options: ExportOptions | None = None
) -> list[str]:
    """Export a found architecture to other tools.

    Args:
        what: A run's folder, its best.yaml, or a folder made by peftsearch.save.
        form: Format to write.
        output: Folder to create.
        overwrite: Whether to replace the contents of the folder.
        options: Which parameters to export, and where the backbone is.

    Returns:
        Lines for the user.

    Raises:
        PeftSearchError: The source, the format or the output cannot be used; nothing is written then.
    """
    options = options or ExportOptions()
    check_output(output, overwrite)
    check_repository(options.push_to_hub)
    require_source(what)
    from peftsearch.exporter.source import read_source
    from peftsearch.exporter.usage import FOLDED, needs, needs_section, readme

    source = read_source(what, options)
    _require_other(output, what)
    require_format(form, source.architecture, partial=source.options.partial)
    exportable = source.open(weights=form != "adapters")
    model: Any = exportable.injection.model
    _require_other(output, Path(str(model.config.name_or_path or ".")))
    task, tokenizer = dict(exportable.injection.injected.task), exportable.tokenizer
    with staged(output, overwrite) as stage:
        lines = _writer(form)(exportable, stage)
        told = needs(task, tokenizer, folded=FOLDED in lines)
        if (stage / README).exists():  # a partial export writes its own
            with (stage / README).open("a", encoding="utf-8") as file:
                file.write(needs_section(task, told))
        else:
            (stage / README).write_text(
                readme(form, task, _class_in(stage) or type(model).__name__, [*lines, *told]), encoding="utf-8"
            )
        lines = [*lines, *told]
    lines = [*lines, f"Parameters of: {exportable.origin}", f"Folder: {output}"]
    return lines if options.push_to_hub is None else [*lines, f"Hub: {push(output, options.push_to_hub)}"]


def _class_in(folder: Path) -> str | None:
    """The class of a model that a folder holds; None where it holds none."""
    path = folder / "config.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("architectures") if path.is_file() else None
    return str(named[0]) if named else None


def _require_other(output: Path, source: Path) -> None:
    """Refuse to write over the source, even with --overwrite.

    Raises:
        CheckpointError: The output is the source.
    """
    if output.resolve() == source.resolve():
        raise CheckpointError(f"{output}: is the source of the export; name another folder")


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

    write_checkpoint(source.injection, directory, source.injection.injected.task, alone=True)
    return ["peftsearch: peftsearch.load(None, DIR) loads model and parameters, peftsearch.load(model, DIR) into yours"]
