"""Exports of the embedded MiniLM with a trained hybrid, each read back in a process of its own.

    python roundtrip.py OUT            # a few seconds a format; OUT must not exist

For each architecture: LoRA, LoRA with biases and a hybrid are put on MiniLM-L6 with other sizes on every block, trained
for 5 steps on random tokens, saved with `peftsearch.save` and exported with `peftsearch export`. What is printed is the
largest difference of logits between the trained model and what a second process reads.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

import peftsearch
from peftsearch.backbone.load import load_backbone
from peftsearch.cli.main import main
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.methods import METHODS

SIZES = {
    "lora": {"lora": (1, 2, 4, 4, 2, 1)},
    "lora+bitfit": {"lora": (1, 0, 4, 4, 2, 1), "bitfit": (3, 1, 2, 1, 0, 3)},
    "hybrid": {"lora": (1, 0, 4, 0, 2, 1), "bitfit": (0, 1, 2, 1, 0, 3), "adapter": (0, 2, 0, 2, 2, 0),
               "prefix": (2, 0, 3, 0, 0, 1)},
    "no bitfit": {"lora": (1, 0, 4, 0, 2, 1), "adapter": (0, 2, 0, 5, 2, 0), "prefix": (2, 0, 3, 0, 0, 1),
                  "adapter_parallel": (0, 0, 3, 0, 0, 0)},
}  # fmt: skip
READ = {
    "peftsearch": "import peftsearch; model = peftsearch.load(None, folder).model",
    "merged": "from transformers import AutoModelForSequenceClassification as A; model = A.from_pretrained(folder)",
    "merged, rest beside": "import peftsearch; model = peftsearch.load(None, folder + '/adapter').model",
    "peft": "import peft; model = peft.AutoPeftModelForSequenceClassification.from_pretrained(folder)",
}


def inputs() -> dict[str, torch.Tensor]:
    """The same 4 sequences of 24 tokens in every process."""
    ids = torch.randint(1000, 30000, (4, 24), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def trained(sizes: dict[str, tuple[int, ...]]) -> torch.nn.Module:
    loaded = load_backbone(None, num_labels=2)
    placements = [
        Placement(stack=b.stack, block=b.index, method=m, size=s[b.index], n_params=METHODS[m].count(b, s[b.index]))
        for b in loaded.backbone.blocks
        for m, s in sizes.items()
        if s[b.index]
    ]
    peftsearch.inject(loaded.model, Architecture(placements=tuple(placements)), loaded.backbone)
    optimizer = torch.optim.AdamW(peftsearch.param_groups(loaded.model, 2e-2))
    for _ in range(5):
        loaded.model(**inputs(), labels=torch.tensor([0, 1, 1, 0])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loaded.model.eval()


def read(how: str, folder: Path) -> torch.Tensor:
    """The logits that another process gets from the folder."""
    code = (
        f"import sys, torch; sys.path.insert(0, {str(Path(__file__).parent)!r}); folder = {str(folder)!r}; "
        f"{READ[how]}; "
        f"from roundtrip import inputs; torch.save(model.eval()(**inputs()).logits.detach(), folder + '.pt')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return torch.load(f"{folder}.pt")


def run(out: Path) -> None:
    for name, sizes in SIZES.items():
        model, place = trained(sizes), out / name.replace(" ", "-")
        with torch.no_grad():
            wanted = model(**inputs()).logits
        peftsearch.save(model, place / "saved")
        for form in ("peftsearch", "merged", "peft", "adapters"):
            status = main(["export", str(place / "saved"), "--format", form, "--output", str(place / form)])
            how = "merged, rest beside" if (place / form / "adapter").exists() else form
            if status == 0 and how in READ:
                difference = float((read(how, place / form) - wanted).abs().max())
                print(json.dumps({"architecture": name, "format": how, "largest difference": difference}), flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
