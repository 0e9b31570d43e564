"""Move the losses of single examples from `examples/` into one file a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def main() -> None:
    """Add the files to `examples-TASK.npz`, under `NAME/LOOK`, and remove them."""
    by_task: dict[str, list[Path]] = {}
    for path in sorted((HERE / "examples").glob("*.npz")):
        by_task.setdefault(path.name.split("-")[0], []).append(path)
    for task, paths in by_task.items():
        target = HERE / f"examples-{task}.npz"
        arrays = dict(np.load(target)) if target.exists() else {}
        for path in paths:
            arrays |= {f"{path.stem}/{look}": values for look, values in np.load(path).items()}
        np.savez_compressed(target, **arrays)
        for path in paths:
            path.unlink()


if __name__ == "__main__":
    main()
