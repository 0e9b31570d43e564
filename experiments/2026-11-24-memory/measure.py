"""Memory of training steps of MiniLM-L6 in fp32 on a CPU: predicted, counted, and as the process grows.

    OMP_NUM_THREADS=1 python experiments/2026-11-24-memory/measure.py > results.json

One child process a setting. `counted` is what peftsearch/measure.py counts: the bytes of weights and buffers, of all
that autograd saves (each storage once), and of the gradients and AdamW states of what is trained. `grown` is the peak
of the process's resident set (VmHWM, reset after the model is loaded and a first short step has started the kernels)
less the resident set before: gradients, AdamW states and everything that is alive at once, temporaries included;
the weights are in it neither before nor after. The second attention setting (no attention dropout) takes torch's fused
kernel, the first one does not: on a CPU torch computes attention with dropout step by step.
"""

import gc
import json
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

SETTINGS = [
    {"trained": "full", "batch": 8, "seq": 128},
    {"trained": "lora 0.1%", "batch": 16, "seq": 64},
    {"trained": "lora 0.1%", "batch": 4, "seq": 256},
]
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
    from peftsearch.baselines import uniform
    from peftsearch.budget import parse_budget
    from peftsearch.fitting import fit
    from peftsearch.injection import inject
    from peftsearch.measure import ADAM_STATES, SavedActivations
    from peftsearch.memory import Step, blocks_passed, estimate

    torch.set_num_threads(1)
    loaded = load_backbone(None, num_labels=LABELS)
    model, backbone = loaded.model.train(), loaded.backbone
    if setting["attention"] == "fused":
        for module in model.modules():
            if "SelfAttention" in type(module).__name__:
                module.dropout.p = 0.0
    weights = weights_of(model, backbone)  # before anything is injected
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
    storages = {t.untyped_storage().data_ptr(): t for t in chain(model.parameters(), model.buffers())}
    trained_bytes = sum(p.numel() * p.element_size() for p in trained)
    counted = {
        "weights": sum(t.untyped_storage().nbytes() for t in storages.values()),
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


def main() -> None:
    """Measure every setting in a process of its own."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
        return
    results = []
    for setting in (s | {"attention": a} for a in ("as trained", "fused") for s in SETTINGS):
        out = subprocess.run(
            [sys.executable, __file__, json.dumps(setting)], capture_output=True, text=True, check=True
        ).stdout
        results.append(json.loads(out.splitlines()[-1]))
        r = results[-1]
        print(r["trained"], r["batch"], r["seq"], r["attention"], file=sys.stderr)
        for row in ("documented", "fused", "eager"):
            print("  predicted", row, {k: round(v / 1e6, 2) for k, v in r["predicted"][row].items()}, file=sys.stderr)
        print("  counted", {k: round(v / 1e6, 2) for k, v in r["counted"].items()}, file=sys.stderr)
        print("  grown", round(r["grown"] / 1e6, 2), file=sys.stderr)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
