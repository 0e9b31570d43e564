"""LoRA on MiniLM in fp32, nf4 and int8: accuracy, step time, memory and latency of the same short trainings."""

import argparse
from itertools import chain
from statistics import mean, median

import torch

from peftsearch.backbone.load import load_backbone
from peftsearch.backbone.quantised import packing_tensors
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.settings import TrainingSettings
from peftsearch.methods import METHODS
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--rank", type=int, default=2)
arguments = parser.parse_args()
torch.set_num_threads(1)
suite = Suite(tasks=(resolve_task(TaskOptions()),))
settings = TrainingSettings()
lora = METHODS["lora"]


def engine_of(how):
    """An engine on the backbone in this form, the bytes of its model, and LoRA on all of its blocks."""
    loaded = load_backbone(None, num_labels=suite.tasks[0].num_labels, quantize=how)
    tensors = chain(loaded.model.parameters(), loaded.model.buffers(), packing_tensors(loaded.model))
    n_bytes = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
    encoded = (encode(suite.tasks[0], loaded.tokenizer, settings.max_length),)
    placements = tuple(
        Placement(
            stack=b.stack, block=b.index, method="lora", size=arguments.rank, n_params=lora.count(b, arguments.rank)
        )
        for b in loaded.backbone.blocks
    )
    engine = LocalEngine(loaded, suite, encoded, settings, torch.device("cpu"), None)
    return engine, loaded.backbone.n_params, n_bytes, Architecture(placements=placements)


engines = {how: engine_of(how) for how in (None, "nf4", "int8")}
outcomes = {how: [] for how in engines}
for seed in range(arguments.seeds):
    for how, (engine, _, _, architecture) in engines.items():  # in turn, so that a load from outside falls on all
        job = Job(architecture=architecture, learning_rate=settings.learning_rate, steps=arguments.steps, seed=seed)
        outcomes[how].append(engine.run(job))
        print(how or "fp32", seed, f"{outcomes[how][-1].score:.4f}", flush=True)
print("| weights | parameters counted | model, bytes | peak of a step, bytes | step, s | latency, s | accuracy |")
print("|---|---:|---:|---:|---:|---:|---|")
for how, (_, n_params, n_bytes, _) in engines.items():
    measured = [outcome.measures for outcome in outcomes[how]]
    print(
        f"| {how or 'fp32'} | {n_params:,} | {n_bytes:,} | {measured[0]['peak_memory_bytes']:,} "
        f"| {median(m['step_s'] for m in measured):.3f} | {median(m['latency_s'] for m in measured):.4f} "
        f"| {mean(o.score for o in outcomes[how]):.4f} ({', '.join(f'{o.score:.4f}' for o in outcomes[how])}) |"
    )
