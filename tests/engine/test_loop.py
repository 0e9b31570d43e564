"""The training loop, the objective and the local engine, on a tiny model."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from peftsearch.backbone.load import load_backbone
from peftsearch.design.baselines import baselines_of
from peftsearch.design.budget import Budget
from peftsearch.design.fitting import fit
from peftsearch.design.space import load_space
from peftsearch.engine import loop
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine, evaluation_steps
from peftsearch.engine.loop import _Unread, rate_factor, train
from peftsearch.engine.scoring import Scorer
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError, Diverged
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite
from tests.runs import save_model, save_task
from tests.tasks import resolve_task

CPU = torch.device("cpu")


class Linear(nn.Module):
    """A model of one layer, in the shape that the loop expects."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        return type("Output", (), {"logits": self.layer(x)})


def batches(n, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        x = torch.randn(8, 3, generator=generator) * scale
        yield {"x": x, "labels": (x[:, 0] > 0).long()}


def run(model, n_steps=10, settings=None, data=None, **more):
    groups = [{"params": list(model.parameters()), "lr": 0.1, "weight_decay": 0.0}]
    settings = settings or TrainingSettings()
    steps = train(
        model, groups, data or batches(n_steps), n_steps=n_steps, settings=settings, loss_of=cross_entropy,
        device=CPU, **more,
    )  # fmt: skip
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_schedule():
    assert [rate_factor(s, 10, 0.2) for s in range(10)] == pytest.approx(
        [1 / 2, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert [rate_factor(s, 4, 0.0) for s in range(4)] == [1, 0.75, 0.5, 0.25]
    assert rate_factor(0, 1, 1.0) == 1


def test_equals_a_loop_written_out():
    """The oracle: AdamW from its paper (1711.05101, alg. 2), clipping and schedule by hand."""
    model = Linear()
    log = run(model, 6, TrainingSettings(max_grad_norm=0.05))
    other, m, v = Linear(), {}, {}
    losses = []
    for t, batch in enumerate(batches(6), 1):
        loss = cross_entropy(other.layer(batch["x"]), batch["labels"])
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, list(other.parameters()))
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
        grads = [g * min(1, 0.05 / (norm + 1e-6)) for g in grads]
        rate = 0.1 * rate_factor(t - 1, 6, 0.1)
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(other.parameters(), grads, strict=True)):
                m[i] = 0.9 * m.get(i, 0) + 0.1 * g
                v[i] = 0.999 * v.get(i, 0) + 0.001 * g**2
                p -= rate * (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.999**t)).sqrt() + 1e-8)
    assert log.losses == pytest.approx(losses, abs=1e-6)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_divergence_is_named_with_its_step():
    bad = list(batches(5))
    bad[2]["x"][0, 0] = float("nan")
    with pytest.raises(Diverged, match="the loss is nan at step 3"):
        run(Linear(), 5, data=bad)
    with pytest.raises(Diverged, match=r"gradient norm is|loss is"):
        run(Linear(), 5, data=list(batches(5, scale=1e38)))


def test_losses_that_are_read_late_are_the_same_and_name_the_same_step(monkeypatch):
    """As on a GPU, where reading a loss waits for all work before it."""
    at_once = run(Linear(), 6)
    monkeypatch.setattr(loop, "_Unread", lambda log, first, every: _Unread(log, first, 4))
    late = run(Linear(), 6)
    assert late.losses == at_once.losses
    assert len(late.step_s) == 6
    bad = list(batches(5))
    bad[2]["x"][0, 0] = float("nan")
    with pytest.raises(Diverged, match="the loss is nan at step 3"):
        run(Linear(), 5, data=bad)


def test_too_few_batches_are_a_defect_of_ours():
    with pytest.raises(ValueError, match="ended after 3 of 5"):
        run(Linear(), 5, data=list(batches(3)))


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"'batch_size' must be at least 1.*unknown key 'lr'"):
        TrainingSettings.from_dict({"batch_size": 0, "lr": 1})
    with pytest.raises(ConfigError, match="at most 1"):
        TrainingSettings.from_dict({"warmup_share": 2})


def test_evaluation_steps():
    assert evaluation_steps(60, 3) == (20, 40, 60)
    assert evaluation_steps(2, 5) == (1, 2)
    assert evaluation_steps(7, 1) == (7,)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An engine on a tiny model and task, with its architectures."""
    folder = tmp_path_factory.mktemp("engine")
    train_file, validation_file = save_task(folder)
    task = resolve_task(train=train_file, validation=validation_file)
    loaded = load_backbone(str(save_model(folder / "model")), num_labels=2)
    engine = LocalEngine(loaded, Suite(tasks=(task,)), [encode(task, loaded.tokenizer)], TrainingSettings(), CPU, None)
    n = loaded.backbone.n_params
    budget = Budget(text="20%", n_params=n // 5, n_backbone=n)
    found = {b.name: fit(b.design, loaded.backbone, budget) for b in baselines_of(load_space("s4"), loaded.backbone)}
    return engine, loaded, found


def job(architecture, **more):
    return Job(**{"architecture": architecture, "learning_rate": 0.01, "steps": 8, **more})


def test_a_job_depends_on_nothing_but_itself(made):
    engine, loaded, found = made
    before = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    first = engine.run(job(found["s4-paper"], seed=3))
    for name in ("lora", "prefix", "bitfit", "head"):
        engine.run(job(found[name], seed=1))
    torch.rand(7)
    again = engine.run(job(found["s4-paper"], seed=3))
    assert (first.score, first.loss) == (again.score, again.loss)
    assert engine.run(job(found["s4-paper"], seed=4)).loss != first.loss
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_intermediate_validations_do_not_change_the_result(made):
    engine, _, found = made
    seen = []
    plain = engine.run(job(found["lora"]))
    watched = engine.run(job(found["lora"], evaluations=4), lambda step, score: seen.append((step, score)))
    assert [step for step, _ in seen] == [2, 4, 6]
    assert (plain.score, plain.loss) == (watched.score, watched.loss)


def test_parts_and_checkpointing_change_a_job_by_rounding_alone(made):
    engine, _, found = made
    plain = engine.run(job(found["s4-paper"], seed=3, measure=True))
    engine._settings = TrainingSettings(accumulate=3, gradient_checkpointing=True)
    try:
        other = engine.run(job(found["s4-paper"], seed=3, measure=True))
    finally:
        engine._settings = TrainingSettings()
    assert other.losses[0] == pytest.approx(plain.losses[0], abs=1e-4)


def test_learns(made):
    engine, _, found = made
    outcome = engine.run(job(found["s4-paper"], steps=150, learning_rate=0.02))
    assert outcome.score > 0.75
    assert outcome.train_loss < 0.5
    assert outcome.loss < 0.68


def test_what_a_report_raises_ends_the_job_and_leaves_the_model_whole(made):
    engine, loaded, found = made
    before = {k: v.clone() for k, v in loaded.model.state_dict().items()}

    def stop(step, score):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(job(found["adapter"], evaluations=2), stop)
    assert all(torch.equal(before[k], v) for k, v in loaded.model.state_dict().items())
    assert not any(p.requires_grad for n, p in loaded.model.named_parameters() if "peftsearch" in n)


class _Words:
    """A tokenizer that knows nothing."""

    pad_token_id = 0
    model_input_names = ("input_ids", "attention_mask")

    def num_special_tokens_to_add(self, pair):
        return 2 + pair

    def __call__(self, texts, pairs=None, **_):
        return {"input_ids": [[1, 2, 3] for _ in texts]}


def test_outputs_that_are_not_finite_are_a_divergence(made):
    engine, loaded, found = made
    with torch.no_grad():
        weight = loaded.model.classifier.weight
        kept = weight.clone()
    with pytest.raises(Diverged, match="not finite"):
        engine.run(job(found["lora"], steps=1, learning_rate=float("inf")))
    assert torch.equal(weight, kept)


def test_regression_standardises_its_target(tmp_path):
    lines = [f"w{i % 30} film w{i % 7},{1.7e9 + 50 * (i % 30)}" for i in range(120)]  # an offset that float32 loses
    (tmp_path / "t.csv").write_text("text,score\n" + "\n".join(lines) + "\n")
    task = resolve_task(train=tmp_path / "t.csv", kind="regression")
    objective = Scorer(task)
    targets = encode(task, _Words()).train.collate(list(range(len(task.train))))["labels"]
    standardised = ((targets - targets.mean()) / targets.std(correction=0)).float()
    assert float(objective.loss(standardised[:, None], targets)) == pytest.approx(0, abs=1e-9)
    assert float(objective.loss(torch.zeros(len(targets), 1), targets)) == pytest.approx(1, rel=1e-5)
    assert task.majority_score == 0.0
