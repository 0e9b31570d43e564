"""The exported configuration in AdapterHub's own package (adapters 1.3.0), in an environment apart.

    python adapters_check.py MODEL SAVED ADAPTERS

MODEL is the backbone's folder, SAVED a folder of `peftsearch.save`, ADAPTERS the folder of its export. Adds what the
files say, activates it, compares the number of trained parameters with the architecture's, and runs a training step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import adapters
import torch
import yaml
from adapters.composition import Stack
from transformers import AutoModel

model = AutoModel.from_pretrained(sys.argv[1])
adapters.init(model)
files = sorted(Path(sys.argv[3]).glob("adapters*.json"))
for file in files:
    model.add_adapter(file.stem, config=adapters.AdapterConfig.load(str(file)))
model.train_adapter(Stack(*(file.stem for file in files)) if len(files) > 1 else files[0].stem)
stated = yaml.safe_load((Path(sys.argv[2]) / "peftsearch.yaml").read_text())["architecture"]["n_params"]
trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
print(f"parameters: adapters {sum(p.numel() for p in trained.values()):,}, the architecture {stated:,}")
hidden = model(input_ids=torch.arange(1000, 1024).view(2, 12)).last_hidden_state
(hidden**2).sum().backward()
print(f"without a gradient: {[name for name, p in trained.items() if p.grad is None]}")
