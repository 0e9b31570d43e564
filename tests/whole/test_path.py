"""The whole path on a tiny backbone: run, train, export; transformers, HF peft and peftsearch load it elsewhere."""

import json
import os
import subprocess
import sys

import pytest
import torch

import peftsearch
from tests.runs import BRIEF, arguments, call

IDS = [[1, 5, 6, 7, 2], [1, 9, 8, 2, 0]]
LOGITS = """
import json, sys, torch
ids = torch.tensor(json.loads(sys.argv[2]))
with torch.no_grad():
    print(json.dumps(load(sys.argv[1]).eval()(input_ids=ids, attention_mask=(ids != 0).long()).logits.tolist()))
"""
ALONE = "assert not any(name.startswith('peftsearch') for name in sys.modules)\n"
LOADERS = {
    "peftsearch": "import peftsearch\ndef load(path): return peftsearch.load(None, path).model\n",
    "merged": "from transformers import AutoModelForSequenceClassification as A\nload = A.from_pretrained\n",
    "peft": "from peft import AutoPeftModelForSequenceClassification as A\nload = A.from_pretrained\n",
}


def elsewhere(folder, form):
    """Logits `(2, 2)` of what a new process loads, by the library that the format is for."""
    code = LOADERS[form] + LOGITS + ("" if form == "peftsearch" else ALONE)
    argv = [sys.executable, "-c", code, str(folder), json.dumps(IDS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return torch.tensor(json.loads(done.stdout))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
@pytest.mark.parametrize(
    ("method", "forms"),
    [((), ["peftsearch"]), pytest.param(("--method", "lora"), ["peft", "merged"], marks=pytest.mark.slow)],
)
def test_what_a_run_found_or_its_reference_gives_the_same_logits_elsewhere(finished, method, forms, tmp_path):
    trained = tmp_path / "trained"
    assert call("train", finished, *method, "--steps", "8", "--device", "cpu", "--output", trained) == 0
    ids = torch.tensor(IDS)
    with torch.no_grad():
        model = peftsearch.load(None, trained).model.eval()
        wanted = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    for form in forms:
        assert call("export", trained, "--format", form, "--output", tmp_path / form) == 0
        torch.testing.assert_close(elsewhere(tmp_path / form, form), wanted, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_relative_names_are_found_from_another_directory(place, tmp_path, monkeypatch):
    """A run, a training and an export whose model and data were named by relative paths."""
    folder, model, files = place
    monkeypatch.chdir(folder)
    names = model.relative_to(folder), tuple(file.relative_to(folder) for file in files)
    assert call(*arguments(*names, tmp_path / "runs", *BRIEF, "--strategy", "random")) == 0
    monkeypatch.chdir(tmp_path)
    brief = ("--steps", "2", "--device", "cpu", "--dtype", "fp32")
    assert call("train", tmp_path / "runs" / "r", "--output", "trained", *brief) == 0
    monkeypatch.chdir("/")
    assert call("evaluate", tmp_path / "trained", "--device", "cpu") == 0
    assert call("export", tmp_path / "trained", "--format", "peftsearch", "--output", tmp_path / "own") == 0
    assert peftsearch.load(None, tmp_path / "own").model is not None
