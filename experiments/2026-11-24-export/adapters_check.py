"""The exported configuration in AdapterHub's own package (adapters 1.3.0, transformers 4.57), in an environment apart.

    python adapters_check.py MODEL SAVED ADAPTERS_JSON

MODEL is the backbone's folder, SAVED a folder of `peftsearch.save`, ADAPTERS_JSON its export. Compares what `adapters`
trains with what the architecture states, and, our parameters put into its modules, the hidden states at the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

import adapters
import yaml
from transformers import AutoModel

saved, config = Path(sys.argv[2]), sys.argv[3]
model = AutoModel.from_pretrained(sys.argv[1])
adapters.init(model)
model.add_adapter("found", config=adapters.AdapterConfig.load(config))
model.train_adapter("found")
stated = yaml.safe_load((saved / "peftsearch.yaml").read_text())["architecture"]["n_params"]
trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
print(f"parameters: adapters {trained:,}, the architecture {stated:,}")
for name, p in model.named_parameters():
    if p.requires_grad:
        print(" ", name, tuple(p.shape))
