"""Read images and their classes as tables, from folders with one folder per class or from columns of a dataset.

The layout is that of `imagefolder` in `datasets`: FOLDER/CLASS/anything.png. It is read directly, so that nothing is
copied into a cache and errors name the file. Files are kept undecoded; `peftsearch.tasks.encoding.images` decodes them.
Left out: labels in a metadata file, and several labels per image.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peftsearch.errors import TaskError, one_line
from peftsearch.options import TaskOptions
from peftsearch.tasks.reading.build import (
    Tables,
    Wishes,
    build_task,
)
from peftsearch.tasks.reading.classes import class_name, natural_key
from peftsearch.tasks.reading.columns import LABELS, Columns, missing_column
from peftsearch.tasks.reading.inputs import read_image
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import ImageSplit, Task

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
IMAGE, LABEL = "image", "label"
"""Column names of a folder's table, the same as in `imagefolder`."""
IN_FOLDERS = Columns(text=IMAGE, label=LABEL)


def require_pillow() -> None:
    """Check that Pillow is installed.

    Raises:
        TaskError: Pillow is not installed.
    """
    if find_spec("PIL") is None:
        raise TaskError("task: reading images needs Pillow: pip install 'peftsearch[images]'")


def load_image_folders(options: TaskOptions, seed: int = 0) -> Task:
    """Read a task from folders with one folder per class.

    Args:
        options: Folders of the splits, and the metric; the folders in `train` are the classes.
        seed: Seed of the choice of validation images, if no validation folder is given.

    Raises:
        TaskError: A folder has another layout, or has classes that train does not have.
    """
    require_pillow()
    train, validation, test = options.train, options.validation, options.test
    assert train is not None, "a task of folders has a training folder"
    wishes = Wishes(
        kind="classification",
        metric=options.metric,
        positive=options.positive,
        seed=seed,
        bad_rows=options.bad_rows,
    )
    named = {"train": train, "validation": validation, "test": test}
    notes: list[str] = []
    tables = {split: read_class_folders(path, notes) for split, path in named.items() if path is not None}
    for table in tables.values():
        require_known(table, {str(name) for name in tables["train"].columns[LABEL]})
    source = "folders " + ", ".join(f"{split}={Path(path).name}" for split, path in named.items() if path is not None)
    chosen = Tables(train=tables["train"], validation=tables.get("validation"), test=tables.get("test"))
    return build_task(Path(train).resolve().name, source, chosen, IN_FOLDERS, wishes, notes=notes, images=True)


def read_class_folders(path: str | Path, notes: list[str]) -> Table:
    """Read the images of a folder with one folder per class, class by class.

    Args:
        path: FOLDER of FOLDER/CLASS/anything.png.
        notes: List that gets a note on ignored files.

    Raises:
        TaskError: The folder has another layout, or a file cannot be read.
    """
    folder = Path(path)
    _check_layout(folder)
    classes = sorted(
        (p for p in folder.iterdir() if p.is_dir() and not _is_hidden(p)), key=lambda p: natural_key(p.name)
    )
    files = [(kind.name, file) for kind in classes for file in _images(kind)]
    n_other = sum(p.is_file() and not _is_hidden(p) for kind in classes for p in kind.rglob("*")) - len(files)
    if n_other:
        notes.append(
            f"{folder}: {n_other} files were left out: not an image by their suffix, or not directly in FOLDER/CLASS/"
        )
    filled = {name for name, _ in files}
    empty = [kind.name for kind in classes if kind.name not in filled]
    if empty:
        notes.append(f"{folder}: class folders without an image were left out: {one_line(', '.join(empty), 80)}")
    return Table(
        where=str(folder),
        columns={IMAGE: [{"path": str(file)} for _, file in files], LABEL: [class_name(name) for name, _ in files]},
        lines=list(range(1, len(files) + 1)),
        unit="row",
    )


def read_images(path: str | Path) -> ImageSplit:
    """Read the images of a folder and its subfolders, without labels; names are paths relative to the folder.

    Raises:
        TaskError: There is no such folder, or it has no images.
    """
    require_pillow()
    folder = Path(path)
    check_folder(folder)
    files = [file for file in sorted(folder.rglob("*")) if _is_image(file)]
    if not files:
        raise TaskError(f"{folder}: holds no images ({' '.join(SUFFIXES)}); give a folder of images")
    images = [read_image(file) for file in files]
    names = [str(file.relative_to(folder)) for file in files]
    return ImageSplit(texts=names, pairs=None, labels=[0] * len(files), images=images)


def choose_image_columns(where: str, features: Any, label: str | None) -> Columns | None:
    """Choose the columns of images and classes in a dataset; None where no column holds images.

    Args:
        where: Name of the dataset in messages.
        features: `Dataset.features`.
        label: The user's label column.

    Raises:
        TaskError: There are several columns of images, or the label column is missing or cannot be guessed.
    """
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    if not images:
        return None
    if len(images) > 1:
        raise TaskError(f"{where}: has several columns of images ({', '.join(images)}); give a dataset with one")
    if label is not None:
        if label not in kinds:
            raise TaskError(
                missing_column(Table(where=where, columns={n: [] for n in kinds}, lines=[], unit="row"), label)
            )
        return Columns(text=images[0], label=label)
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    found = classes[:1] if len(classes) == 1 else [name for name in kinds if name.lower() in LABELS][:1]
    if not found:
        raise TaskError(f"{where}: cannot tell the label column from {', '.join(kinds)}; name it with --label-column")
    note = f"{where}: columns guessed: image {images[0]!r}, label {found[0]!r}"
    return Columns(text=images[0], label=found[0], note=note)


def undecoded(dataset: Any, columns: Columns) -> Any:
    """A split of a dataset reduced to its image and label columns, with undecoded image files."""
    from datasets import Image

    return dataset.select_columns([columns.text, columns.label]).cast_column(columns.text, Image(decode=False))


def require_known(table: Table, known: set[str]) -> None:
    """Refuse class folders that training does not have.

    Raises:
        TaskError: There are such folders; names the first.
    """
    for name in dict.fromkeys(str(label) for label in table.columns[LABEL]):
        if name not in known:
            told = one_line(", ".join(sorted(known, key=natural_key)), 120)
            raise TaskError(
                f"{Path(table.where) / name}: training has no class of this name (known: {told}); rename the folder or "
                "leave it out"
            )


def _check_layout(folder: Path) -> None:
    check_folder(folder)
    loose = next((file for file in sorted(folder.iterdir()) if _is_image(file)), None)
    if loose is not None:
        raise TaskError(f"{loose}: is not in a class folder; put every image into FOLDER/CLASS/ and give FOLDER")
    inside = [kind for kind in sorted(folder.iterdir()) if kind.is_dir() and not _is_hidden(kind)]
    if any(_images(kind) for kind in inside):
        return
    deep = next((kind for kind in inside for file in kind.rglob("*") if _is_image(file)), None)
    hint = f"; give {deep}, whose folders are classes" if deep is not None else ""
    raise TaskError(
        f"{folder}: has no class folders with images, FOLDER/CLASS/*.png{hint or '; make one for each class'}"
    )


def check_folder(folder: Path) -> None:
    """Check that a folder is there.

    Raises:
        TaskError: It is not, or it is a file.
    """
    if not folder.exists():
        raise TaskError(f"{folder}: no such folder; looked in {folder.parent.absolute()}")
    if not folder.is_dir():
        raise TaskError(
            f"{folder}: is a file, a folder of images is needed; for a table of texts leave --kind image out"
        )


def _images(kind: Path) -> list[Path]:
    return [file for file in sorted(kind.iterdir()) if _is_image(file)]


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not _is_hidden(file) and file.is_file()


def _is_hidden(path: Path) -> bool:
    """Whether a file is hidden, like the `._x.png` that macOS creates next to `x.png`."""
    return path.name.startswith(".")
