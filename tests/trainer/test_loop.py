"""What a batch's parts, checkpointed blocks and a snapshot must not change."""

import csv

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import load_backbone
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.engine.loop import cut
from peftsearch.engine.loop import train as train_plainly
from peftsearch.engine.probe import fit_head, put_head
from peftsearch.engine.scoring import Scorer
from peftsearch.engine.settings import TrainingSettings
from peftsearch.engine.trainable import checkpointing
from peftsearch.injection.in_place import in_place
from peftsearch.injection.inject import inject, param_groups
from peftsearch.methods import METHODS
from peftsearch.methods.support import find_obstacle
from peftsearch.tasks.encoding.batches import batches
from peftsearch.tasks.encoding.encode import encode
from tests.methods import place, settle
from tests.tasks import resolve_task
from tests.tiny import FAMILIES, tiny_input


def losses(output):
    rows = csv.DictReader((output / "curve.csv").read_text().splitlines())
    return [float(row["loss"]) for row in rows]


def last(steps):
    """What a generator returns at its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 5))
def test_processes_and_parts_share_a_batch_without_loss(n_examples, n_processes, n_parts):
    batch = {"labels": torch.arange(n_examples)}
    parts = [cut(batch, n_parts, i, n_processes) for i in range(n_processes)]
    counted = [i for own in parts for part, share in own if share for i in part["labels"].tolist()]
    assert sorted(counted) == list(range(n_examples))
    assert sum(share for own in parts for _, share in own) == pytest.approx(1)
    assert all(1 <= len(own) <= n_parts for own in parts)


def test_parts_of_texts_count_by_the_tokens_that_are_learned():
    labels = torch.tensor([[1, 2, 3], [1, -100, -100], [-100, 1, 2], [3, -100, -100]])
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    parts = cut({"labels": labels, "logits": logits}, 3)
    each = [nn.functional.cross_entropy(p["logits"].flatten(0, 1), p["labels"].flatten()) * s for p, s in parts]
    nothing = cut({"labels": torch.full((2, 3), -100), "logits": logits[:2]}, 2)
    assert len(nothing) == 2
    assert len(parts) > 1
    torch.testing.assert_close(torch.stack(each).sum(), loss)


def test_the_losses_are_those_of_the_plain_loop(calm, trained):
    """The loop of a search, which knows nothing of processes, parts or snapshots, is the oracle."""
    _, model, files = calm
    task = resolve_task(train=files[0], validation=files[1])
    loaded = load_backbone(model, num_labels=2)
    settings = TrainingSettings(max_length=64)
    data, objective, device = encode(task, loaded.tokenizer, 64).train, Scorer(task), torch.device("cpu")
    head = fit_head(loaded, objective, data, batch_size=128, device=device, autocast=None)
    assert head is not None
    design = Design(grouping="uniform", allocation=(1.0,), methods=(("lora",),))
    architecture = fit(design, loaded.backbone, parse_budget("20%", loaded.backbone.n_params))
    with inject(loaded.model, architecture, loaded.backbone, seed=1):
        put_head(loaded.model, head)
        steps = train_plainly(
            loaded.model,
            param_groups(loaded.model, settings.learning_rate, settings.head_learning_rate),
            batches(data, 16, seed=1, steps=6),
            n_steps=6,
            settings=settings,
            loss_of=objective.loss,
            device=device,
            seed=1,
        )
        log = last(steps)
    assert losses(trained)[6:] == pytest.approx(log.losses, abs=1e-6)


def test_accumulation_and_checkpointing_change_losses_by_rounding_alone(tmp_path, train, trained):
    more = ("--steps", "6", "--eval-every", "3", "--accumulate", "3", "--gradient-checkpointing")
    assert train(tmp_path / "cut", *more) == 0
    assert losses(tmp_path / "cut") == pytest.approx(losses(trained)[:6], abs=1e-5)


@pytest.mark.parametrize("method", [*METHODS, "full"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_checkpointed_blocks_have_the_same_gradients(method, family):
    """With dropout: what is computed anew must draw the same numbers, too."""
    model = FAMILIES[family]()
    backbone = detect(model)
    if method != "full" and find_obstacle(method, backbone) is not None:
        pytest.skip("cannot act there")
    inside = in_place(model) if method == "full" else inject(model, place(backbone, **{method: 2}), backbone)
    calls = []
    model.get_submodule(backbone.blocks[0].attention.path).register_forward_hook(lambda *_: calls.append(1))
    found = []
    with inside:
        if method != "full":
            settle(model)
            calls.clear()
        for wanted in (False, True):
            torch.manual_seed(3)
            model.train().zero_grad()
            with checkpointing(model, wanted):
                model(**tiny_input(model)).logits.square().sum().backward()
            found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    # Once plainly; once, and once anew, but for the ladder, whose gradients do not pass the blocks.
    assert len(calls) == (2 if method == "ladder" else 3)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)
