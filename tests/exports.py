"""A run's folder for the tests of exports, with values off their start, and what is compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.load import load_backbone
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.injection.inject import inject
from peftsearch.injection.states import save_state
from peftsearch.methods import METHODS
from peftsearch.methods.abilities import count_placed, is_placed
from tests import runs
from tests.found import best_of
from tests.generators import save_generator
from tests.methods import available, disturb, settle
from tests.runs import call, save_model
from tests.tiny import tiny_input


def placed(backbone: Backbone, sizes: dict[str, Sequence[int]]) -> Architecture:
    """Sizes of each method on each of the four blocks; 0 leaves it out, and a block takes no more than it can."""
    placements, seen = [], set()
    for b in backbone.blocks:
        for name, size in ((m, s[b.index]) for m, s in sizes.items() if s[b.index]):
            if is_placed(METHODS[name], b, backbone.blocks[0]):
                size = min(size, METHODS[name].max_size(b))
                if name in seen and getattr(METHODS[name], "per_group", False):
                    size = next(p.size for p in placements if p.method == name)  # they share a matrix of one rank
                n_params = count_placed(METHODS[name], b, size, name not in seen)
                seen.add(name)
                placements.append(Placement(stack=b.stack, block=b.index, method=name, size=size, n_params=n_params))
    return Architecture(placements=tuple(placements))


def logits(model: Any) -> torch.Tensor:
    """Of three padded sequences."""
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**tiny_input(model)).logits
    return found


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest logit."""
    torch.testing.assert_close(got, wanted, atol=1e-5 * max(1.0, float(wanted.abs().max())), rtol=0)


class Run:
    """A folder as a run leaves it, with the logits of its first and its second seed."""

    def __init__(
        self, path: Path, family: str = "bert", seeds: Sequence[int] = (1000, 1001), kind: str = "classification",
        **sizes: Sequence[int],
    ) -> None:  # fmt: skip
        generates = kind == "generation"
        self.path, save = path / "run", save_generator if generates else save_model
        self.model = str(save(path / "model", family))
        loaded = load_backbone(self.model, num_labels=0 if generates else 2, problem_type=kind if generates else None)
        self.plain = logits(loaded.model)
        names = available(loaded.backbone, **dict.fromkeys(sizes, 1))
        architecture = placed(loaded.backbone, {m: s for m, s in sizes.items() if m in names})
        self.path.mkdir()
        best = best_of(loaded.backbone, lora=1) | {"architecture": architecture.to_dict()}
        if generates:
            best["task"] |= {"kind": kind, "labels": []}
        (self.path / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False))
        self.logits = {}
        for i, seed in enumerate(seeds):
            with inject(loaded.model, architecture, loaded.backbone):
                if not generates:
                    settle(loaded.model)
                disturb(loaded.model, std=0.3 + i)
                with torch.no_grad():
                    for name in loaded.backbone.head:
                        for parameter in loaded.model.get_submodule(name).parameters():
                            parameter += 0.5 * torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
                self.logits[seed] = logits(loaded.model)
                save_state(loaded.model, self.path / "confirmed" / f"trial-3-seed{seed}.safetensors")
        assert (self.logits[seeds[0]] - self.plain).abs().max() > 0.05

    def export(self, form: str, output: Path, *more: Any) -> None:
        assert call("export", self.path, "--format", form, "--output", output, *more) == 0


def refused(capsys: Any, *argv: Any) -> str:
    capsys.readouterr()  # progress of what was saved for the test
    return runs.refused(capsys, *argv)
