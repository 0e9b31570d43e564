"""Memory of training steps of MiniLM-L6 in fp32 on a CPU: predicted, counted, and as the process grows.

    OMP_NUM_THREADS=1 python measure.py > results.json

One child process a setting, all with and without dropout in the attention: with it torch computes attention step by
step on a CPU and keeps the weights of all heads; without it its fused kernel runs, which keeps none. `counted` is what
peftsearch/measure.py counts: the bytes of weights and buffers, of all that autograd saves (each storage once), and of
the gradients and AdamW states of what is trained. `grown` is the peak of the process's resident set over three steps
(VmHWM, which is reset after a first short step has started the kernels) less the resident set before them: all that is
alive at once, temporaries and buffers of kernels included, the weights not.

The weights of the quantised model come last: bytes of the parameters' storages and of what bitsandbytes keeps beside.
"""

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

SETTINGS = [
    {"trained": "full", "batch": 8, "seq": 128},
    {"trained": "lora 0.1%", "batch": 16, "seq": 64},
    {"trained": "lora 0.1%", "batch": 4, "seq": 256},
]
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc gives blocks above this back when they are freed; by default the threshold grows, and the heap with it."""
STEPS = 3
LABELS = 2


def resident(key: str) -> int:
    """`VmRSS` or `VmHWM` of this process, in bytes."""
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measure(setting: dict) -> dict:
    """Predict and measure one setting in this process."""
    import torch

    from peftsearch.backbone.load import load_backbone
    from peftsearch.backbone.outline import weights_of
    from peftsearch.design.baselines import uniform
    from peftsearch.design.budget import parse_budget
    from peftsearch.design.fitting import fit
    from peftsearch.design.memory import ADAM_STATES, Step, blocks_passed, estimate
    from peftsearch.engine.measure import SavedActivations, stored_bytes
    from peftsearch.injection.inject import inject

    torch.set_num_threads(1)
    loaded = load_backbone(None, num_labels=LABELS)
    model, backbone = loaded.model.train(), loaded.backbone
    if setting["attention"] == "fused":
        for module in model.modules():
            if "SelfAttention" in type(module).__name__:
                module.dropout.p = 0.0
    weights = weights_of(model)  # before anything is injected
    n_head = sum(p.numel() for path in backbone.head for p in model.get_submodule(path).parameters())
    if setting["trained"] == "full":
        blocks, n_added, n_trained = backbone.blocks, 0, weights.n_params
    else:
        architecture = fit(uniform("lora"), backbone, parse_budget("0.1%", backbone.n_params))
        inject(model, architecture, backbone)
        blocks, n_added = blocks_passed(architecture, backbone), architecture.n_params
        n_trained = n_added + n_head
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == n_trained

    def step(batch: int, seq: int, optimizer: torch.optim.Optimizer) -> None:
        ids = torch.randint(1000, 30000, (batch, seq), generator=torch.Generator().manual_seed(0))
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        torch.nn.functional.cross_entropy(logits, torch.zeros(batch, dtype=torch.long)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step(1, 8, torch.optim.SGD(trained, lr=0.0))
    for parameter in model.parameters():
        parameter.detach().sum()  # rows of the embeddings that no text has used are not resident yet
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    for _ in range(STEPS):
        step(setting["batch"], setting["seq"], optimizer)
    grown = resident("VmHWM") - before
    kept = SavedActivations(model)
    with kept:
        step(setting["batch"], setting["seq"], optimizer)
    trained_bytes = sum(p.numel() * p.element_size() for p in trained)
    counted = {
        "weights": stored_bytes(model),
        "gradients": trained_bytes,
        "optimizer": ADAM_STATES * trained_bytes,
        "hidden_states": kept.n_bytes,
    }
    predicted = {}
    for kind in ("documented", "fused", "eager"):
        m = estimate(
            weights,
            blocks,
            Step(batch=setting["batch"], seq=setting["seq"], attention=kind),
            n_trained=n_trained,
            n_added=n_added,
        )
        parts = {name: getattr(m, name) for name in counted}
        predicted[kind] = parts | {"sum": sum(parts.values())}
    return {
        **setting,
        "n_trained": n_trained,
        "predicted": predicted,
        "counted": counted | {"sum": sum(counted.values())},
        "grown": grown,
    }


def packed_weights(name: str) -> dict:
    """Predicted and stored bytes of the weights under a quantisation."""
    from peftsearch.backbone.load import load_backbone
    from peftsearch.backbone.outline import read_outline
    from peftsearch.backbone.quantised import packing_tensors
    from peftsearch.design.memory import weight_bytes
    from peftsearch.options import ModelOptions

    model = load_backbone(None, num_labels=LABELS, quantize=name).model
    stored = sum({t.data_ptr(): t.nbytes for t in (*model.parameters(), *packing_tensors(model))}.values())
    return {
        "quantize": name,
        "predicted": weight_bytes(read_outline(ModelOptions()).weights, 4, name),
        "stored": stored,
    }


def main() -> None:
    """Measure every setting in a process of its own."""
    if len(sys.argv) > 1:
        given = json.loads(sys.argv[1])
        print(json.dumps(packed_weights(given) if isinstance(given, str) else measure(given)))
        return
    results = []
    settings = [s | {"attention": a} for a in ("with dropout", "fused") for s in SETTINGS]
    for setting in [*settings, "nf4", "int8"]:
        out = subprocess.run(
            [sys.executable, __file__, json.dumps(setting)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | MALLOC,
        ).stdout
        results.append(json.loads(out.splitlines()[-1]))
        print(results[-1], file=sys.stderr)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
