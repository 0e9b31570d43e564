"""An injected model in other people's loops: transformers.Trainer, accelerate, and a bare loop."""

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

import peftsearch
from peftsearch.backbone.detect import detect
from peftsearch.injection.states import state
from tests.methods import make, place

ALL = {"lora": 2, "bitfit": 3, "adapter": 2, "prefix": 2}


def examples(n=24):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 99, (n, 6), generator=generator)
    return [
        {"input_ids": row, "attention_mask": torch.ones(6, dtype=torch.long), "labels": int(row[0]) % 2} for row in ids
    ]


@pytest.fixture
def model():
    model = make()
    peftsearch.inject(model, place(detect(model), **ALL))
    return model


def changed(model, before):
    """The names of what moved, and of those that moved although they are neither injected nor the head."""
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    return moved, {name for name in moved if not name.startswith(("peftsearch.", "classifier."))}


def kept(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def every_placement_moved(moved):
    return {f"encoder_{i}_{method}" for i in range(4) for method in ALL} <= {n.split(".")[1] for n in moved if "." in n}


def arguments(folder, **more):
    return TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True,
        learning_rate=1e-2, save_steps=3, logging_steps=3, seed=0, dataloader_pin_memory=False, **more,
    )  # fmt: skip


def test_trainer_trains_saves_and_resumes(model, tmp_path):
    before = kept(model)
    Trainer(model=model, args=arguments(tmp_path, max_steps=6), train_dataset=examples()).train()
    moved, foreign = changed(model, before)
    assert every_placement_moved(moved)
    assert foreign == set()
    resumed = make()
    peftsearch.inject(resumed, place(detect(resumed), **ALL), seed=7)
    again = Trainer(model=resumed, args=arguments(tmp_path, max_steps=6), train_dataset=examples())
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert all(torch.equal(value, state(model)[name]) for name, value in state(resumed).items())
    peftsearch.save(model, tmp_path / "out")
    assert all(
        torch.equal(v, state(model)[n]) for n, v in state(peftsearch.load(make(), tmp_path / "out").model).items()
    )


def test_what_trainer_saves_loads_in_transformers(model, tmp_path):
    trainer = Trainer(model=model, args=arguments(tmp_path, max_steps=1), train_dataset=examples())
    trainer.train()
    trainer.save_model(str(tmp_path / "own"))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "own")
    assert torch.equal(plain.classifier.weight, model.classifier.weight)
    assert "peftsearch" not in (tmp_path / "own" / "config.json").read_text()
    assert "peftsearch" not in str(plain.config._attn_implementation)


def test_accelerate_trains(model):
    before = kept(model)
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(peftsearch.param_groups(model, 1e-2))
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(examples(), batch_size=4))
    for batch in loader:
        accelerator.backward(prepared(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()
    moved, foreign = changed(accelerator.unwrap_model(prepared), before)
    assert every_placement_moved(moved)
    assert foreign == set()


def test_a_bare_loop_trains_and_lowers_the_loss(model):
    before = kept(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(15):
        batch = next(iter(DataLoader(examples(), batch_size=24)))
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    moved, foreign = changed(model, before)
    assert every_placement_moved(moved)
    assert foreign == set()
    assert losses[-1] < 0.7 * losses[0]
