"""Which errors are defects of the package; the code under test is compiled under a file name of its own or another."""

import json
from pathlib import Path

import pytest
import torch

import peftsearch
from peftsearch.errors import PeftSearchError, is_defect

OWN = str(Path(peftsearch.__file__).parent / "engine" / "made_up.py")
ELSEWHERE = str(Path(torch.__file__).parents[1] / "transformers" / "made_up.py")


def raised(code, file):
    with pytest.raises(Exception) as caught:  # noqa: PT011  # any kind
        exec(compile(code, file, "exec"), {"torch": torch, "json": json})
    return caught.value


@pytest.mark.parametrize(
    "code",
    [
        "torch.nn.Linear(2, 2).wieght",
        "torch.nn.Linear(2, 2)(None)",
        "torch.nn.functional.cross_entropy(None, None)",
        "json.dumps(object())",
        "assert False",
        "nmae",
    ],
)
def test_the_last_library_that_is_not_torch_has_the_defect(code):
    assert is_defect(raised(code, OWN))
    assert not is_defect(raised(code, ELSEWHERE))


def test_errors_of_the_data_or_the_machine_are_none():
    for code in ("torch.zeros(2) @ torch.zeros(3)", "raise MemoryError", "json.loads('{')"):
        assert not is_defect(raised(code, OWN))


@pytest.mark.parametrize(
    "text",
    [
        "--storage 'postgresql://bob:s3cret@host/db' is not there",
        "postgresql://host/db?user=bob&password=s3cret",
        "postgresql//bob:s3cret/host",
        "bob:s3@s3cret@host",
        "sqlite://bob:s3cret@/x.db",
        "model 'https://bob:s3cret@hub/x': no such folder",
        "ray://bob:p/w:s3cret@host:1",
        "Unused Tokens: ['postgresql://bob:s3cret@host/db']",
        "HF_TOKEN=s3cret",
        "postgresql:/bob:s3cret@h/db: holds no study",
        "host=h user=bob password='s3cret'",
        "https:/bob:s3cret@h/x.csv: no such file; looked in /home",
    ],
)
def test_messages_hold_no_passwords(text):
    assert "s3cret" not in str(PeftSearchError(text))


@pytest.mark.parametrize(
    "text", ["runs/a: b@c is odd", "t.csv, line 3: no label", "sqlite:///x.db", "a@b.org wrote x://y"]
)
def test_other_messages_stay_what_they_are(text):
    assert str(PeftSearchError(text)) == text
