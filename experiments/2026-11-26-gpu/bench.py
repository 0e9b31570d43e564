"""A LoRA step of the project beside one of HF peft under transformers' Trainer, on a GPU: seconds and peak memory.

bench.py OUT.csv [--rounds 2] [--steps 20] [--shape large|smollm|small] [--batch 8] [--seq 512] [--how ...]

A llama of 0.47 billion random weights, batches of 8 x 512 random tokens, LoRA of rank 8 on the query and value maps,
AdamW, clipping at 1, bf16; plain, packed in nf4, compiled, with gradient checkpointing and (ours alone) in four parts
(`--how` names some of these). Both load the same folder; the two alternate, each round in a fresh process. A step's
time is the median behind the first five steps, and the GPU is waited for at each end. Peak memory is the allocator's on
a GPU, and on a CPU what the process had resident at most. `counted` is what `peftsearch estimate` counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

WARM = 5
RANK = 8
SHAPES = {"large": (1024, 4096, 24, 16), "small": (64, 256, 2, 1), "smollm": (576, 1536, 30, 3)}
"""Width, inner width, blocks, heads of keys and values. `smollm` has those of SmolLM2-135M."""


def save(folder: Path, shape: str) -> None:
    """A llama with random weights, in bf16."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    width, inner_width, n_layers, n_kv = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=width, intermediate_size=inner_width, num_hidden_layers=n_layers, vocab_size=32_000,
        num_attention_heads=width // 64, num_key_value_heads=n_kv, max_position_embeddings=2048,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.cpu().save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32_000)}, unk_token="w3"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="w0", bos_token="w1", eos_token="w2").save_pretrained(
        folder
    )


def rows(n: int, seq: int) -> list[list[int]]:
    """Random tokens."""
    return torch.randint(4, 32_000, (n, seq), generator=torch.Generator().manual_seed(0)).tolist()


def wait() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ours(folder: Path, steps: int, batch: int, seq: int, how: str) -> list[float]:
    """Seconds of each step."""
    from peftsearch.backbone.device import choose_device, suit_attention
    from peftsearch.backbone.load import load_backbone
    from peftsearch.engine.loop import train
    from peftsearch.engine.settings import TrainingSettings
    from peftsearch.engine.trainable import checkpointing
    from peftsearch.injection.inject import inject, param_groups
    from tests.methods import place, settle

    device, dtype = choose_device(), torch.bfloat16
    loaded = load_backbone(
        folder, num_labels=0, problem_type="generation", device=device, compute_dtype=dtype,
        quantize="nf4" if how == "nf4" else None,
    )  # fmt: skip
    suit_attention(loaded.model, device, dtype)
    tokens = rows(steps * batch, seq)
    settings = TrainingSettings(accumulate=4 if how == "four parts" else 1)

    def batches() -> Any:
        for i in range(steps):
            ids = torch.tensor(tokens[i * batch : (i + 1) * batch])
            yield {"input_ids": ids[:, :-1], "attention_mask": torch.ones_like(ids[:, :-1]), "labels": ids[:, 1:]}

    def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())

    out = []
    if how == "compiled":
        loaded.model.compile()
    with (
        inject(loaded.model, place(loaded.backbone, lora=RANK), loaded.backbone, seed=0),
        checkpointing(loaded.model, how == "checkpointing"),
    ):
        settle(loaded.model)
        groups = param_groups(loaded.model, 1e-4, 1e-4)
        print("trained", sum(p.numel() for g in groups for p in g["params"]), file=sys.stderr)
        loop = train(
            loaded.model, groups, batches(), n_steps=steps, settings=settings, loss_of=loss_of, device=device,
            autocast=dtype,
        )  # fmt: skip
        wait()
        started = time.perf_counter()
        for _ in loop:
            wait()
            out.append(time.perf_counter() - started)
            started = time.perf_counter()
    return out


def theirs(folder: Path, steps: int, batch: int, seq: int, how: str) -> list[float]:
    """Seconds of each step."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainerCallback, TrainingArguments

    more: dict[str, Any] = {}
    if how == "nf4":
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
        more["device_map"] = {"": 0 if torch.cuda.is_available() else "cpu"}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **more)
    model.config.use_cache = False
    if how == "nf4":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["q_proj", "v_proj"]))
    print("trained", sum(p.numel() for p in model.parameters() if p.requires_grad), file=sys.stderr)
    data = [{"input_ids": ids, "labels": ids} for ids in rows(steps * batch, seq)]
    out: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            wait()
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            wait()
            out.append(time.perf_counter() - self.started)

    with tempfile.TemporaryDirectory() as work:
        again: dict[str, Any] = {"use_reentrant": False}
        arguments = TrainingArguments(
            output_dir=work,
            max_steps=steps,
            per_device_train_batch_size=batch,
            bf16=True,
            learning_rate=1e-4,
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            torch_compile=how == "compiled",
            gradient_checkpointing=how == "checkpointing",
            gradient_checkpointing_kwargs=again if how == "checkpointing" else None,
        )
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()]).train()
    return out


def counted(folder: Path, batch: int, seq: int, how: str, trained: int) -> int:
    """Bytes that `peftsearch estimate` counts."""
    words = ["estimate", "--model", str(folder), "--budget", str(trained), "--design", "lora", "--batch", str(batch)]
    words += ["--seq", str(seq - 1), "--dtype", "bf16", "--kind", "generation", "--json"]
    words += ["--quantize", "nf4"] if how == "nf4" else []
    done = subprocess.run([sys.executable, "-m", "peftsearch", *words], capture_output=True, text=True, check=True)
    parts = next(iter(json.loads(done.stdout)["bytes"].values()))
    return int(parts["total"] - parts["context"])


def main() -> None:
    """Alternate the two, or run one of them in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shape", default="large", choices=list(SHAPES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--how", nargs="+", default=["plain", "nf4", "compiled", "checkpointing", "four parts"])
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--folder", type=Path)
    a = parser.parse_args()
    batch, seq = a.batch, a.seq
    if a.one:
        who, how = a.one
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        seconds = (ours if who == "ours" else theirs)(a.folder, a.steps, batch, seq, how)
        resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident
        print(json.dumps({"ms": round(1000 * median(seconds[WARM:]), 2), "first_s": seconds[0], "peak_mb": peak / 1e6}))
        return
    folder = Path(tempfile.mkdtemp()) / "llama"
    save(folder, a.shape)
    fields = ["round", "how", "who", "ms", "first_s", "peak_mb", "counted_mb"]
    with a.out.open("w", newline="") as file:
        table = csv.DictWriter(file, fields)
        table.writeheader()
        for number in range(a.rounds):
            for how in a.how:
                for who in ("ours", "theirs"):
                    if how == "four parts" and who == "theirs":
                        continue
                    words = [str(a.out), "--steps", str(a.steps), "--folder", str(folder), "--one", who, how]
                    words += ["--batch", str(batch), "--seq", str(seq)]
                    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
                    if done.returncode:
                        print(who, how, done.stderr[-1500:], flush=True)
                        continue
                    row = json.loads(done.stdout.strip().splitlines()[-1])
                    n = next(int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("trained"))
                    if number == 0 and who == "ours" and how in ("plain", "nf4"):
                        row["counted_mb"] = counted(folder, batch, seq, how, n) / 1e6
                    table.writerow({"round": number, "how": how, "who": who, **row})
                    file.flush()
                    print(number, how, who, row, n, flush=True)


if __name__ == "__main__":
    main()
