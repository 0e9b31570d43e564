"""What the mechanics cost, and a training step and a whole trial against HF peft and transformers.Trainer.

    python bench.py help|inject|memory|step|trial

A and B always alternate in one process, and the order of a pair changes every time, so that a load from outside falls
on both. The ratios are medians over the pairs of A / B, of wall time and of this process's CPU time; on a machine that
does other work besides, CPU time is the steadier (set OMP_NUM_THREADS=1: waiting threads count as CPU time).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import datasets
import peft
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from peftsearch.backbone.device import hardware
from peftsearch.backbone.folder import demo_folder
from peftsearch.backbone.load import LoadedBackbone, load_backbone
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.baselines import S4_PAPER
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.loop import _step, train
from peftsearch.engine.settings import TrainingSettings
from peftsearch.injection.inject import inject, param_groups, remove
from peftsearch.methods import get_method
from peftsearch.options import TaskOptions
from peftsearch.tasks import Task, load_embedded, resolve_task
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite

CPU = torch.device("cpu")
SETTINGS = TrainingSettings()
LOSS = torch.nn.functional.cross_entropy
STEPS = 40
RANK = 4
Times = tuple[float, float]  # wall and CPU seconds


def bench_help(repeats: int) -> None:
    """`python -m peftsearch --help` as a process."""
    command = [sys.executable, "-m", "peftsearch", "--help"]
    times = [timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)) for _ in range(repeats)]
    report("peftsearch --help", times, "bound 0.5 s (its CPU time is the child's and not counted)")


def bench_inject(repeats: int) -> None:
    """Injection plus removal on MiniLM, the anatomy known (as in a study) and detected each time (as by hand)."""
    loaded = load_backbone(None, num_labels=2)
    for name, architecture in {"lora": uniform_lora(loaded), "s4-paper": fitted(S4_PAPER, loaded)}.items():
        for known, backbone in {"anatomy known": loaded.backbone, "anatomy detected": None}.items():

            def cycle(architecture: Architecture = architecture, backbone: object = backbone) -> None:
                inject(loaded.model, architecture, backbone)
                remove(loaded.model)

            report(f"{name}, {known}", [timed(cycle) for _ in range(repeats)], "bound 0.2 s")


def bench_memory(repeats: int) -> None:
    """Resident memory over cycles of inject, one training step, remove."""
    loaded = load_backbone(None, num_labels=2)
    design = fitted(S4_PAPER, loaded)
    batch = random_batch(16, 32)
    for i in range(5 + repeats):
        if i == 5:
            before = resident_mb()
        with inject(loaded.model, design, loaded.backbone, seed=i):
            list(train(loaded.model, param_groups(loaded.model, 1e-3), [batch], n_steps=1, settings=SETTINGS,
                       loss_of=LOSS, device=CPU))  # fmt: skip
    print(f"{repeats} cycles: {before:.1f} MB, growth {resident_mb() - before:+.1f} MB (bound 20 MB)")


def bench_step(repeats: int) -> None:
    """One training step of LoRA on query and value of all blocks: ours against HF peft's, two copies of the model."""
    loaded, theirs = load_backbone(None, num_labels=2), peft_lora()
    architecture = uniform_lora(loaded)
    inject(loaded.model, architecture, loaded.backbone)
    n_theirs = sum(p.numel() for n, p in theirs.named_parameters() if p.requires_grad and "lora_" in n)
    assert n_theirs == architecture.n_params, f"{n_theirs} against {architecture.n_params} parameters"
    for batch_size in (16, 32):
        batch = random_batch(batch_size, 32)
        ours = stepper(loaded.model, param_groups(loaded.model, 1e-3), batch)
        other = stepper(theirs, [{"params": [p for p in theirs.parameters() if p.requires_grad]}], batch)
        alternate(f"step, {batch_size} x 32 tokens, ours", "peft", ours, other, repeats, "bound 1.05", warm_up=5)


def bench_trial(repeats: int) -> None:
    """A trial of a study against the same training by hand; our first trial, with loading, comes before."""
    task = (
        resolve_task(TaskOptions(train=FILES[0], validation=FILES[1])) if FILES else load_embedded("sentiment", seed=0)
    )
    engines: list[LocalEngine] = []
    jobs: list[Job] = []

    def first() -> None:
        loaded = load_backbone(None, num_labels=task.num_labels)
        encoded = encode(task, loaded.tokenizer, SETTINGS.max_length)
        engines.append(LocalEngine(loaded, Suite(tasks=(task,)), [encoded], SETTINGS, CPU, None))
        jobs.append(Job(architecture=uniform_lora(loaded), learning_rate=SETTINGS.learning_rate, steps=STEPS))
        ours()

    def ours() -> None:
        outcome = engines[0].run(jobs[0])
        print(f"  ours: training {outcome.train_s:.2f} s, rest {outcome.wall_s - outcome.train_s:.2f} s, "
              f"score {outcome.score:.3f}")  # fmt: skip

    alternate("first trial, load and tokenising included", "Trainer + peft", first, lambda: by_hand(task), 1, "")
    alternate("further trial", "Trainer + peft", ours, lambda: by_hand(task), repeats, "bound 0.6")


def by_hand(task: Task) -> None:
    """What a user writes: load, map the tokenizer over the data, peft's LoRA, Trainer, evaluate once."""
    marks = [time.perf_counter()]
    tokenizer = AutoTokenizer.from_pretrained(demo_folder())
    model = peft_lora()
    marks.append(time.perf_counter())
    train_data, validation = (
        datasets.Dataset.from_dict({"text": split.texts, "label": split.labels}).map(
            lambda rows: tokenizer(rows["text"], truncation=True, max_length=SETTINGS.max_length), batched=True
        )
        for split in (task.train, task.validation)
    )
    marks.append(time.perf_counter())
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                max_steps=STEPS,
                per_device_train_batch_size=SETTINGS.batch_size,
                per_device_eval_batch_size=2 * SETTINGS.batch_size,  # Trainer's own is 8; this is what ours takes
                learning_rate=SETTINGS.learning_rate,
                warmup_steps=SETTINGS.warmup_share,
                weight_decay=0.0,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=train_data,
            eval_dataset=validation,
            processing_class=tokenizer,  # its collator pads each batch to its longest text
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        )
        trainer.train()
        marks.append(time.perf_counter())
        score = trainer.evaluate()["eval_accuracy"]
        marks.append(time.perf_counter())
    parts = [later - earlier for earlier, later in pairwise(marks)]
    print("  by hand: load {:.2f} s, tokenise {:.2f} s, training {:.2f} s, evaluation {:.2f} s, score {:.3f}".format(
        *parts, score))  # fmt: skip


def peft_lora() -> torch.nn.Module:
    model = AutoModelForSequenceClassification.from_pretrained(demo_folder(), num_labels=2)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=RANK, target_modules=["query", "value"])
    return peft.get_peft_model(model, config)


def uniform_lora(loaded: LoadedBackbone) -> Architecture:
    lora = get_method("lora")
    return Architecture(
        placements=tuple(
            Placement(stack=b.stack, block=b.index, method="lora", size=RANK, n_params=lora.count(b, RANK))
            for b in loaded.backbone.blocks
        )
    )


def fitted(design: Design, loaded: LoadedBackbone) -> Architecture:
    return fit(design, loaded.backbone, parse_budget("0.1%", loaded.backbone.n_params))


def stepper(model: torch.nn.Module, groups: list[dict], batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """A training step with an AdamW of its own, as `peftsearch.engine.loop.train` takes it, for both sides."""
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()

    def step() -> None:
        _step(model, batch, params, SETTINGS, LOSS, CPU, None, 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def random_batch(batch_size: int, n_tokens: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(1000, 30000, (batch_size, n_tokens))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(batch_size) % 2}


def alternate(
    name: str, other_name: str, ours: Callable, other: Callable, repeats: int, bound: str, warm_up: int = 0
) -> None:
    """Time two callables in turn, the order swapped every time, and print the medians and the ratio."""
    a: list[Times] = []
    b: list[Times] = []
    for i in range(warm_up + repeats):
        for call, times in ((ours, a), (other, b))[:: 1 if i % 2 == 0 else -1]:
            times.append(timed(call))
    a, b = a[warm_up:], b[warm_up:]
    report(name, a)
    report(other_name, b)
    ratios = [[x / y for x, y in zip(pair_a, pair_b, strict=True)] for pair_a, pair_b in zip(a, b, strict=True)]
    wall, cpu = (median(r) for r in zip(*ratios, strict=True))
    print(f"  ratio: wall {wall:.3f}, CPU {cpu:.3f}  {bound}", flush=True)


def timed(call: Callable[[], object]) -> Times:
    started = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def report(name: str, times: list[Times], bound: str = "") -> None:
    wall, cpu = zip(*times, strict=True)
    print(f"{name}: median {median(wall):.4f} s (CPU {median(cpu):.4f}), {min(wall):.4f} to {max(wall):.4f} s, "
          f"n={len(times)}  {bound}", flush=True)  # fmt: skip


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


FILES: list[str] = []
BENCHES = {"help": (bench_help, 10), "inject": (bench_inject, 20), "memory": (bench_memory, 50),
           "step": (bench_step, 60), "trial": (bench_trial, 5)}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", choices=BENCHES)
    parser.add_argument("--repeats", type=int, help="measurements, or cycles of memory, or pairs")
    parser.add_argument("--files", nargs=2, default=[], help="of trial: training and validation file of another task")
    args = parser.parse_args()
    print(f"{args.bench}: {hardware(CPU)}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; torch "
          f"{torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")  # fmt: skip
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    FILES.extend(args.files)
    bench, repeats = BENCHES[args.bench]
    bench(args.repeats or repeats)
