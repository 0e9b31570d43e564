"""`peftsearch runs`: list the runs of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from peftsearch.errors import ConfigError
from peftsearch.files import MAX_OUTPUT_BYTES, read_yaml
from peftsearch.study.best import BEST
from peftsearch.study.settings import SETTINGS

_COLUMNS = ("name", "state", "verdict", "pick", "parameters", "budget", "score", "task", "model", "made")


def runs(folder: Path = Path("runs"), /, *, json: bool = False) -> int:
    """List the runs of a folder, newest last: state, verdict, pick, score.

    Args:
        folder: Folder of the runs.
        json: Print JSON.
    """
    found = sorted(folder.glob(f"*/{SETTINGS}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError(f"{folder}: holds no runs; `peftsearch run` makes one, or give another folder")
    from peftsearch.cli.terminal import print_rows

    print_rows([_row(path.parent) for path in found], json)
    return 0


def _row(run: Path) -> dict[str, Any]:
    """One run in a line; what cannot be read is said in its state."""
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, "") | {"name": run.name}
    try:
        settings = read_yaml(run / SETTINGS, MAX_OUTPUT_BYTES)
        row |= {key: settings.get(key, "") for key in ("budget", "task", "model")}
        row["state"] = "not finished"
        if (run / BEST).is_file():
            row |= _result(read_yaml(run / BEST, MAX_OUTPUT_BYTES)) | {"state": "finished"}
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError):
        row["state"] = "damaged"
    return row


def _result(best: Mapping[str, Any]) -> dict[str, Any]:
    scores = best["scores"]["test"] or best["scores"]["validation"]
    return {
        "verdict": best["verdict"]["kind"],
        "pick": best["name"],
        "parameters": best["budget"]["used"],
        "score": round(mean(scores["values"]), 4) if scores else "",
        "made": str(best["made"])[:16].replace("T", " "),
    }
