"""The fitted heads of a study: made once, kept in its folder, and used by every process that trains for it."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from peftsearch.engine.local import LocalEngine
from peftsearch.engine.probe import HeadStart
from peftsearch.errors import StudyError, one_line
from peftsearch.files import write_state

HEADS = "heads.safetensors"
_FORMAT = "peftsearch-heads/1"


def settle_heads(engine: LocalEngine, folder: Path) -> None:
    """Let an engine start from the heads that a study keeps; fit and keep them if it has none yet.

    Raises:
        StudyError: The file is damaged.
    """
    path = folder / HEADS
    if path.exists():
        engine.use_heads(_read(path))
        return
    heads = engine.fit_heads()
    named = {f"{i}/{name}": v.cpu().contiguous() for i, head in enumerate(heads) for name, v in (head or {}).items()}
    if named:
        write_state(save(named, {"format": _FORMAT, "tasks": str(len(heads))}), path)


def _read(path: Path) -> list[HeadStart | None]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            if facts.get("format") != _FORMAT:
                raise StudyError(f"{path}: is not the file of a study's heads; remove it to fit them again")
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            n_tasks = int(facts["tasks"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise StudyError(f"{path}: is damaged ({one_line(error, 120)}); remove it to fit the heads again") from error
    heads = [
        {name.partition("/")[2]: value for name, value in values.items() if name.partition("/")[0] == str(i)}
        for i in range(n_tasks)
    ]
    return [head or None for head in heads]
