"""Tasks on images: the layout of folders, columns of datasets, and what is refused."""

import shutil

import datasets
import pytest
from datasets import ClassLabel, Features, Image, Value

from peftsearch.errors import TaskError
from peftsearch.tasks.reading.images import choose_image_columns, read_images
from tests.image_files import save_images
from tests.tasks import resolve_task


@pytest.fixture(scope="session")
def dataset(gallery):
    """The images as a dataset, with classes in an order of their own."""
    features = Features({"image": Image(), "label": ClassLabel(names=["red", "green", "blue"])})
    splits = {}
    for name in ("train", "validation"):
        files = sorted((gallery / name).glob("*/*.png"))
        rows = {"image": [str(file) for file in files], "label": [file.parent.name for file in files]}
        splits[name] = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict(splits)


def load(gallery, **more):
    splits = {name: gallery / name for name in ("train", "validation", "test")}
    return resolve_task(**{**splits, "kind": "image", **more})


class TestFolders:
    def test_a_folder_is_read_as_imagefolder_reads_it(self, gallery, tmp_path):
        own = load(gallery)
        theirs = datasets.load_dataset(
            "imagefolder", data_dir=str(gallery / "train"), split="train", cache_dir=str(tmp_path)
        )
        assert list(own.labels) == theirs.features["label"].names == ["blue", "green", "red"]
        assert sorted(own.train.labels) == sorted(theirs["label"])
        assert own.kind == "classification"
        assert own.metric == "accuracy"
        assert own.has_images

    def test_the_content_decides_the_fingerprint(self, gallery, tmp_path):
        shutil.copytree(gallery, tmp_path / "g")
        assert load(tmp_path / "g").fingerprint == load(gallery).fingerprint
        shutil.copy(gallery / "test" / "red" / "0.png", tmp_path / "g" / "train" / "red" / "0.png")
        other = load(tmp_path / "g")
        assert other.fingerprint != load(gallery).fingerprint
        assert "1 images of test occur in train too" in other.notes

    def test_validation_is_split_off_and_train_is_limited(self, gallery):
        task = load(gallery, validation=None, test=None)
        assert (len(task.train), len(task.validation)) == (21, 3)
        assert not {row for row, _ in task.train.rows()} & {row for row, _ in task.validation.rows()}
        assert len(load(gallery, max_train=10).train) == 10

    def test_classes_are_in_natural_order(self, tmp_path, gallery):
        for name, colour in (("10", "red"), ("2", "blue")):
            shutil.copytree(gallery / "train" / colour, tmp_path / "t" / name)
        assert resolve_task(train=tmp_path / "t", kind="image").labels == ("2", "10")

    def test_what_is_left_out_is_told(self, gallery, tmp_path):
        shutil.copytree(gallery / "train", tmp_path / "t")
        (tmp_path / "t" / "red" / "notes.txt").write_text("x")
        (tmp_path / "t" / "red" / "._0.png").write_text("of the system's making")
        (tmp_path / "t" / "white").mkdir()
        notes = " ".join(resolve_task(train=tmp_path / "t", validation=gallery / "validation", kind="image").notes)
        assert "1 files were left out: not an image by their suffix" in notes
        assert "class folders without an image were left out: white" in notes


class TestDatasets:
    @pytest.mark.parametrize("form", ["saved", "parquet"])
    def test_columns_are_found_by_their_features(self, dataset, form, gallery, tmp_path):
        if form == "saved":
            dataset.save_to_disk(tmp_path / "d")
        else:
            (tmp_path / "d").mkdir()
            for name, split in dataset.items():
                split.to_parquet(tmp_path / "d" / f"{name}.parquet")
        task = resolve_task(str(tmp_path / "d"))
        assert task.has_images
        assert task.labels == ("red", "green", "blue")
        names = [dataset["train"].features["label"].int2str(label) for label in dataset["train"]["label"]]
        assert [task.labels[label] for label in task.train.labels] == names
        assert task.train.images == [file.read_bytes() for file in sorted((gallery / "train").glob("*/*.png"))]
        assert resolve_task(str(tmp_path / "d"), kind="image").fingerprint == task.fingerprint

    def test_a_dataset_without_images(self, tmp_path):
        (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
        with pytest.raises(TaskError, match="no column holds images"):
            resolve_task(str(tmp_path), kind="image")

    @pytest.mark.parametrize(
        ("features", "label", "told"),
        [
            ({"a": Image(), "b": Image(), "label": ClassLabel(names=["x", "y"])}, None, r"several columns of images"),
            ({"image": Image(), "size": Value("int64")}, None, "cannot tell the label column"),
            ({"image": Image(), "label": ClassLabel(names=["x", "y"])}, "lable", "did you mean 'label'"),
        ],
    )
    def test_columns_that_cannot_be_told(self, features, label, told):
        with pytest.raises(TaskError, match=told):
            choose_image_columns("d", Features(features), label)


class TestRefused:
    def test_classes_that_train_has_not(self, gallery, tmp_path):
        shutil.copytree(gallery / "validation", tmp_path / "v")
        (tmp_path / "v" / "red").rename(tmp_path / "v" / "rot")
        with pytest.raises(TaskError, match=r"v/rot: training has no class of this name \(known: blue, green, red\)"):
            load(gallery, validation=tmp_path / "v")

    def test_folders_of_another_layout(self, gallery, tmp_path):
        with pytest.raises(TaskError, match=r"red/0\.png: is not in a class folder"):
            load(gallery, train=gallery / "train" / "red")
        shutil.copytree(gallery / "train", tmp_path / "d" / "train")
        with pytest.raises(TaskError, match=r"no class folders with images.*give .*train, whose folders are classes"):
            load(gallery, train=tmp_path / "d")
        with pytest.raises(TaskError, match="make one for each class"):
            load(gallery, train=gallery / "model")
        with pytest.raises(TaskError, match="is a file, a folder of images is needed"):
            load(gallery, train=gallery / "model" / "config.json")
        with pytest.raises(TaskError, match="no such folder"):
            load(gallery, test=tmp_path / "nowhere")
        with pytest.raises(TaskError, match="one class only"):
            load(gallery, train=save_images(tmp_path / "one", 3, classes=("red",)), validation=None, test=None)

    def test_options_of_texts(self, gallery):
        with pytest.raises(TaskError, match="text_column is not for images"):
            load(gallery, text_column="text")
        with pytest.raises(TaskError, match="is for kind generation, but the kind is image"):
            load(gallery, template="{prompt}{completion}")
        with pytest.raises(TaskError, match="give --train FOLDER"):
            resolve_task(kind="image")
        with pytest.raises(TaskError, match="takes no kind"):
            resolve_task("sentiment", kind="image")

    def test_no_pillow(self, gallery, monkeypatch):
        monkeypatch.setattr("peftsearch.tasks.reading.images.find_spec", lambda name: None)
        with pytest.raises(TaskError, match=r"needs Pillow: pip install 'peftsearch\[images\]'"):
            load(gallery)

    def test_a_folder_without_images_has_nothing_to_predict(self, gallery, tmp_path):
        with pytest.raises(TaskError, match="holds no images"):
            read_images(tmp_path)
        assert len(read_images(gallery / "test")) == 12
