"""Largest difference of logits to the trained model's, each export loaded by a process of its own.

Usage: python logits.py OUT

The processes for peft and merged import transformers and HF peft alone; they fail if peftsearch comes in.
"""

import json
import subprocess
import sys
from pathlib import Path

IDS = [[101, 1996, 2143, 2001, 2307, 102], [101, 1037, 2919, 2338, 102, 0]]
LOGITS = """
import json, sys, torch
ids = torch.tensor(json.loads(sys.argv[2]))
with torch.no_grad():
    print(json.dumps(load(sys.argv[1]).eval()(input_ids=ids, attention_mask=(ids != 0).long()).logits.tolist()))
"""
ALONE = "import sys; assert not any(name.startswith('peftsearch') for name in sys.modules)\n"
LOADERS = {
    "trained": "import peftsearch\ndef load(path): return peftsearch.load(None, path).model\n",
    "peftsearch": "import peftsearch\ndef load(path): return peftsearch.load(None, path).model\n",
    "merged": "from transformers import AutoModelForSequenceClassification as A\nload = A.from_pretrained\n",
    "peft": "from peft import AutoPeftModelForSequenceClassification as A\nload = A.from_pretrained\n",
}


def logits(folder, name):
    """Logits of the folder's model, from a new process."""
    check = ALONE if name in ("merged", "peft") else ""
    argv = [sys.executable, "-c", LOADERS[name] + LOGITS + check, str(folder), json.dumps(IDS)]
    rows = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return [value for row in rows for value in row]


def main():
    """Print a line for each export."""
    out = Path(sys.argv[1])
    wanted = logits(out / "trained", "trained")
    print(f"trained: logits {', '.join(f'{x:.4f}' for x in wanted)}")
    for name in ("peft", "merged", "peftsearch"):
        got = logits(out / name, name)
        difference = max(abs(a - b) for a, b in zip(wanted, got, strict=True))
        print(f"{name}: largest difference {difference:.2g}")


if __name__ == "__main__":
    main()
