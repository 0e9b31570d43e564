"""Images and their classes as tables: from folders of class folders, or from the columns of a dataset.

The layout is that of `imagefolder` in `datasets`: FOLDER/CLASS/anything.png. It is read directly, so that nothing is
copied into a cache and a fault is told by its file. Files are kept as they are; `pixels` decodes them. Left out: labels
in a metadata file, and several labels an image.
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
    class_name,
    natural_key,
    read_image,
)
from peftsearch.tasks.reading.columns import LABELS, Columns, missing_column
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import ImageSplit, Task

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
IMAGE, LABEL = "image", "label"
"""The columns of a folder's table; `imagefolder` calls them so too."""
IN_FOLDERS = Columns(text=IMAGE, label=LABEL)


def require_pillow() -> None:
    """Check that the extra is installed.

    Raises:
        TaskError: It is not.
    """
    if find_spec("PIL") is None:
        raise TaskError("task: reading images needs Pillow: pip install 'peftsearch[images]'")


def load_image_folders(options: TaskOptions, seed: int = 0) -> Task:
    """Read a task from folders of class folders.

    Args:
        options: Folders of the splits, and the metric; the folders in `train` are the classes.
        seed: Decides which images become validation where no folder is given for it.

    Raises:
        TaskError: A folder is not of the layout, or its classes are not those of train.
    """
    require_pillow()
    train, validation, test = options.train, options.validation, options.test
    assert train is not None, "a task of folders has a training folder"
    wishes = Wishes(kind="classification", metric=options.metric, seed=seed)
    named = {"train": train, "validation": validation, "test": test}
    notes: list[str] = []
    tables = {split: read_class_folders(path, notes) for split, path in named.items() if path is not None}
    for table in tables.values():
        require_known(table, {str(name) for name in tables["train"].columns[LABEL]})
    source = "folders " + ", ".join(f"{split}={Path(path).name}" for split, path in named.items() if path is not None)
    chosen = Tables(train=tables["train"], validation=tables.get("validation"), test=tables.get("test"))
    return build_task(Path(train).resolve().name, source, chosen, IN_FOLDERS, wishes, notes=notes, images=True)


def read_class_folders(path: str | Path, notes: list[str]) -> Table:
    """The images of a folder of class folders, class by class.

    Args:
        path: FOLDER of FOLDER/CLASS/anything.png.
        notes: Is told of what is left out.

    Raises:
        TaskError: It is not of that layout, or a file cannot be read.
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
            f"{folder}: {n_other} files are no images by their suffix or not in FOLDER/CLASS/, and were left out"
        )
    empty = [kind.name for kind in classes if kind.name not in {name for name, _ in files}]
    if empty:
        notes.append(f"{folder}: class folders without an image were left out: {one_line(', '.join(empty), 80)}")
    return Table(
        where=str(folder),
        columns={IMAGE: [{"path": str(file)} for _, file in files], LABEL: [class_name(name) for name, _ in files]},
        lines=list(range(1, len(files) + 1)),
        unit="row",
    )


def read_images(path: str | Path) -> ImageSplit:
    """The images of a folder, in the folders in it too, without labels; named by their path in it.

    Raises:
        TaskError: There is no such folder, or no image in it.
    """
    require_pillow()
    folder = Path(path)
    _check_folder(folder)
    files = [file for file in sorted(folder.rglob("*")) if _is_image(file)]
    if not files:
        raise TaskError(f"{folder}: holds no images ({' '.join(SUFFIXES)}); give a folder of images")
    images = [read_image(file) for file in files]
    names = [str(file.relative_to(folder)) for file in files]
    return ImageSplit(texts=names, pairs=None, labels=[0] * len(files), images=images)


def choose_image_columns(where: str, features: Any, label: str | None) -> Columns | None:
    """The column of images and that of classes of a dataset; None where no column holds images.

    Args:
        where: How messages name it.
        features: `Dataset.features`.
        label: The user's label column.

    Raises:
        TaskError: There are several columns of images, or the label column is not there or cannot be guessed.
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
    """A split of a dataset with its image and label column alone, each image as its file."""
    from datasets import Image

    return dataset.select_columns([columns.text, columns.label]).cast_column(columns.text, Image(decode=False))


def require_known(table: Table, known: set[str]) -> None:
    """Refuse class folders that training has not.

    Raises:
        TaskError: Naming the first.
    """
    for name in dict.fromkeys(str(label) for label in table.columns[LABEL]):
        if name not in known:
            told = one_line(", ".join(sorted(known, key=natural_key)), 120)
            raise TaskError(
                f"{Path(table.where) / name}: no class of training is called so (known: {told}); rename the folder or "
                "leave it out"
            )


def _check_layout(folder: Path) -> None:
    _check_folder(folder)
    loose = next((file for file in sorted(folder.iterdir()) if _is_image(file)), None)
    if loose is not None:
        raise TaskError(f"{loose}: stands in no class folder; put every image into FOLDER/CLASS/ and give FOLDER")
    inside = [kind for kind in sorted(folder.iterdir()) if kind.is_dir() and not _is_hidden(kind)]
    if any(_images(kind) for kind in inside):
        return
    deep = next((kind for kind in inside for file in kind.rglob("*") if _is_image(file)), None)
    hint = f"; give {deep}, whose folders are classes" if deep is not None else ""
    raise TaskError(
        f"{folder}: has no class folders with images, FOLDER/CLASS/*.png{hint or '; make one for each class'}"
    )


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise TaskError(f"{folder}: no such folder; looked in {folder.parent.absolute()}")
    if not folder.is_dir():
        raise TaskError(
            f"{folder}: is a file, a folder of images is needed; a table of texts goes without --kind image"
        )


def _images(kind: Path) -> list[Path]:
    return [file for file in sorted(kind.iterdir()) if _is_image(file)]


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not _is_hidden(file) and file.is_file()


def _is_hidden(path: Path) -> bool:
    """Whether a file is of the system's making, as the `._x.png` that macOS leaves beside `x.png`."""
    return path.name.startswith(".")
