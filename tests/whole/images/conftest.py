"""A tiny ViT, folders of images, and one finished run and training on them."""

import pytest

from tests.runs import QUICK, call


@pytest.fixture(scope="session")
def data(gallery):
    """The options that name model and images."""
    splits = ("train", "validation", "test")
    return ("--model", gallery / "model", "--kind", "image", *(x for s in splits for x in (f"--{s}", gallery / s)))


@pytest.fixture(scope="session")
def run(gallery, data):
    """A finished `peftsearch run`."""
    size = ("--strategy", QUICK, "--trials", "3", "--steps", "4", "--search-steps", "2", "--seeds", "2")
    more = (*size, "--device", "cpu", "--name", "r")
    assert call("run", "--budget", "5%", *data, *more, "--runs", gallery / "runs") == 0
    return gallery / "runs" / "r"


@pytest.fixture(scope="session")
def trained(gallery, run):
    """LoRA, trained in full on what the run names."""
    argv = ("train", run, "--method", "lora", "--steps", "8", "--device", "cpu", "--output", gallery / "lora")
    assert call(*argv) == 0
    return gallery / "lora"
