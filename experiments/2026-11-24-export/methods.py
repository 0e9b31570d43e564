"""Every method on the embedded MiniLM through the formats that hold it, each read back in a process of its own.

    python methods.py OUT [NAME ...]     # half a minute an architecture on a busy machine; OUT must not exist

Each architecture is put on MiniLM-L6 on four of its six blocks, with values off their start by normal noise and nothing
trained; methods that choose what they train are primed on random tokens. It is saved with `peftsearch.save` and
exported with `peftsearch export`. What is printed is the largest difference of logits between the model that was saved
and what a second process reads; where a format refuses, its line stands on stderr. Then prompts on classifiers, which
are refused, are put into HF peft by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import peft
import torch
from roundtrip import inputs, read
from torch.nn import functional

import peftsearch
from peftsearch.backbone.load import load_backbone
from peftsearch.cli.main import main
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.engine.priming import prime
from peftsearch.methods import METHODS
from peftsearch.methods.abilities import ModelWide, count_placed

HYBRIDS = {
    "krona of square factors": {"krona": 3},
    "dora+bitfit": {"dora": 4, "bitfit": 3},
    "lora+layernorm+bitfit": {"lora": 4, "layernorm": 2, "bitfit": 3},
    "ia3+layernorm": {"ia3": 1, "layernorm": 2},
}
ON = (0, 2, 3, 5)


def disturbed(sizes: dict[str, int], std: float = 0.1) -> torch.nn.Module:
    """MiniLM with methods on four blocks; those that act once on a model are on the first."""
    loaded = load_backbone(None, num_labels=2)
    placements, seen = [], set()
    for block in loaded.backbone.blocks:
        for name, wanted in sizes.items():
            method = METHODS[name]
            if block.index in ((0,) if isinstance(method, ModelWide) else ON):
                size = min(wanted, method.max_size(block))
                n_params = count_placed(method, block, size, name not in seen)
                seen.add(name)
                placements.append(
                    Placement(stack=block.stack, block=block.index, method=name, size=size, n_params=n_params)
                )
    model = loaded.model
    peftsearch.inject(model, Architecture(placements=tuple(placements)), loaded.backbone)
    prime(model, [inputs() | {"labels": torch.tensor([0, 1, 1, 0])}], loss_of=functional.cross_entropy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.get_submodule("peftsearch").parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def export(name: str, sizes: dict[str, int], out: Path) -> None:
    model, place = disturbed(sizes), out / name.replace(" ", "-")
    with torch.no_grad():
        wanted = model(**inputs()).logits
    peftsearch.save(model, place / "saved")
    peftsearch.remove(model)
    with torch.no_grad():
        moved = float((wanted - model(**inputs()).logits).abs().max())
    row: dict[str, object] = {"architecture": name, "moved by": moved}
    for form in ("peftsearch", "merged", "peft"):
        status = main(["export", str(place / "saved"), "--format", form, "--output", str(place / form)])
        if status == 0:
            how = "merged, rest beside" if (place / form / "adapter").exists() else form
            row[form] = float((read(how, place / form) - wanted).abs().max())
    print("ROW", json.dumps(row), flush=True)


def prompts_by_hand() -> None:
    """HF peft's prompt before a classifier's head, with the same vectors and the same head."""
    model = disturbed({"prompt": 4})
    with torch.no_grad():
        wanted = model(**inputs()).logits
        vectors = next(model.get_submodule("peftsearch").parameters()).clone()
        peftsearch.remove(model)
        theirs = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4))
        theirs.prompt_encoder["default"].embedding.weight.copy_(vectors)
        difference = float((theirs.eval()(**inputs()).logits - wanted).abs().max())
    print("ROW", json.dumps({"prompt on a classifier, HF peft by hand": difference}), flush=True)


if __name__ == "__main__":
    architectures = {name: {name: 4} for name in METHODS} | HYBRIDS
    for name in sys.argv[2:] or architectures:
        export(name, architectures[name], Path(sys.argv[1]))
    prompts_by_hand()
