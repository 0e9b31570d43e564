"""What a batch's parts, checkpointed blocks and a snapshot must not change."""

import csv

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import load_backbone
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.engine.loop import train as train_plainly
from peftsearch.engine.probe import fit_head, put_head
from peftsearch.engine.scoring import Scorer
from peftsearch.engine.settings import TrainingSettings
from peftsearch.injection.in_place import in_place
from peftsearch.injection.inject import inject, param_groups
from peftsearch.methods import METHODS
from peftsearch.methods.support import find_obstacle
from peftsearch.tasks.encoding.batches import batches
from peftsearch.tasks.encoding.encode import encode
from peftsearch.trainer.loop import checkpointing, shares
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
    cut = [shares(list(range(n_examples)), i, n_processes, n_parts) for i in range(n_processes)]
    assert sorted(i for own in cut for part in own for i in part) == list(range(n_examples))
    assert all(1 <= len(own) <= n_parts for own in cut)


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
