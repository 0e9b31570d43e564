"""Costs against closed forms, and that measuring leaves no trace."""

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import load_backbone
from peftsearch.design.architecture import Architecture
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.measure import Meter, SavedActivations, reference_batch
from peftsearch.engine.settings import TrainingSettings
from peftsearch.injection.inject import inject
from peftsearch.injection.states import state
from peftsearch.study.objectives import MEASURES
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.encoding.encoded import EncodedTexts
from peftsearch.tasks.suite import Suite
from tests.methods import available, disturb, make, place
from tests.tasks import resolve_task
from tests.tiny import TEXT_FAMILIES, outline

B, S, D, FF, HEADS = 4, 6, 32, 64, 4
CPU = torch.device("cpu")
FOUR = {"prefix": 2, "adapter": 2, "lora": 2, "bitfit": 3}
TIMES = {"step_s", "latency_s", "merged_latency_s", "backbone_latency_s"}


def split_of(lengths):
    rng = random.Random(0)
    return EncodedTexts(
        input_ids=[[rng.randrange(5, 99) for _ in range(n - 1)] + [2] for n in lengths],  # as encoder-decoders need it
        token_type_ids=None,
        labels=[i % 2 for i in range(len(lengths))],
        pad_id=0,
    )


def meter_of(model, batch_size=B):
    return Meter(model, split_of([S] * 8), loss_of=nn.functional.cross_entropy, batch_size=batch_size, device=CPU)


def measure(model, **sizes):
    backbone = detect(model)
    meter = meter_of(model)
    architecture = place(backbone, **available(backbone, **sizes))
    with inject(model, architecture, backbone):
        return meter.measure(architecture, [0.3, 0.1, 0.2])


def matmul(rows, d_in, d_out):
    return 2 * rows * d_in * d_out


FORWARD = (
    4 * (4 * matmul(B * S, D, D) + 2 * matmul(B * S, D, FF) + 2 * 2 * B * HEADS * S * S * (D // HEADS))
    + matmul(B, D, D)  # the pooler
    + matmul(B, D, 2)  # the head
)
"""BERT: four blocks of projections, feed-forward and attention (scores, then weights times values)."""


class TestFlops:
    def test_of_the_head_alone(self):
        measures = measure(make())
        assert measures["inference_flops"] == FORWARD
        assert measures["train_flops"] == FORWARD + matmul(D, B, 2), "the head's weight gradient"

    @pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["fused attention", "attention with dropout"])
    @pytest.mark.parametrize(
        ("sizes", "a_block"),
        [
            ({"prefix": 3}, 2 * 2 * B * HEADS * S * 3 * (D // HEADS)),
            ({"lora": 2}, 2 * (matmul(B * S, D, 2) + matmul(B * S, 2, D))),
            ({"adapter": 5}, 2 * (matmul(B * S, D, 5) + matmul(B * S, 5, D))),
            ({"bitfit": 3}, 0),
        ],
        ids=lambda value: "".join(value) if isinstance(value, dict) else "",
    )
    def test_that_a_method_adds(self, sizes, a_block, dropout):
        model = make()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        assert measure(model, **sizes)["inference_flops"] == FORWARD + 4 * a_block

    @pytest.mark.parametrize("family", [f for f in TEXT_FAMILIES if outline(f).blocks[0].attention.interface])
    def test_that_fused_attention_is_counted_as_eager_is(self, family):
        """Eager attention is matrix products, which the counter knows; the fused backward computes scores once more."""
        counts = []
        for implementation in ("sdpa", "eager"):
            model = make(family)
            model.set_attn_implementation(implementation)
            for module in model.modules():
                for name in ("p", "dropout", "dropout_prob", "attention_dropout", "attn_dropout"):
                    if isinstance(getattr(module, name, None), float):
                        setattr(module, name, 0.0)
            counts.append(measure(model, **FOUR))
        heads_dim = 16 * HEADS if family in ("qwen3", "gemma") else D
        n_attentions = 6 if family in ("t5", "bart") else 4  # in both halves, and between them
        scores_again = n_attentions * 2 * B * S * (S + 2) * heads_dim
        assert counts[0]["inference_flops"] == counts[1]["inference_flops"]
        assert counts[0]["train_flops"] == counts[1]["train_flops"] + scores_again


class TestMemory:
    def test_saved_activations_count_each_storage_once_and_no_weight(self):
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        activations = SavedActivations(model)
        with activations:
            logits = model(torch.ones(7, 3))
            nn.functional.cross_entropy(logits, torch.zeros(7, dtype=torch.long)).backward()
        inputs, hidden, log_probabilities, labels, total_weight = 7 * 3, 7 * 5, 7 * 2, 7, 1
        assert activations.n_bytes == 4 * (inputs + hidden + log_probabilities + total_weight) + 8 * labels

    def test_of_the_head_alone(self):
        model = make()
        n_model = sum(t.untyped_storage().nbytes() for t in {*model.parameters(), *model.buffers()})
        head = measure(model)["peak_memory_bytes"]
        # The model; gradient and two states of the head; its input, log-probabilities, total weight, labels.
        assert head == n_model + 3 * 4 * (2 * D + 2) + 4 * (B * D + B * 2 + 1) + 8 * B

    def test_that_rank_adds(self):
        small, large = measure(make(), lora=1), measure(make(), lora=4)
        n_added = large["params"] - small["params"]
        low = 4 * B * S * 3 * 8  # the low-rank states of two maps in four blocks, three numbers more each
        assert large["peak_memory_bytes"] - small["peak_memory_bytes"] == 4 * 4 * n_added + low


def test_disk_is_the_size_of_the_file(tmp_path):
    model = make()
    backbone = detect(model)
    meter, architecture = meter_of(model), place(backbone, **FOUR)
    with inject(model, architecture, backbone):
        tuned = {name: value for name, value in state(model).items() if not name.startswith("classifier")}
        save_file(tuned, tmp_path / "tuned.safetensors", {"format": "peftsearch-1"})
        measured = meter.measure(architecture, [1.0])["disk_bytes"]
    assert measured == (tmp_path / "tuned.safetensors").stat().st_size
    assert measured > 4 * architecture.n_params


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_all_measures_of_every_family(family):
    model = make(family)
    measures = measure(model, **FOUR)
    assert set(measures) == set(MEASURES)
    assert all(value > 0 for value in measures.values())
    assert measures["step_s"] == 0.2
    assert measures["train_flops"] > measures["inference_flops"]
    again = measure(make(family), **FOUR)
    assert {k: v for k, v in again.items() if k not in TIMES} == {k: v for k, v in measures.items() if k not in TIMES}


def test_counts_are_kept_and_times_are_not(monkeypatch):
    model = make()
    backbone = detect(model)
    meter = meter_of(model)
    counts, count = [], meter._count
    monkeypatch.setattr(meter, "_count", lambda: counts.append(1) or count())
    for sizes, n_counts in (({"lora": 1}, 1), ({"lora": 2}, 2), ({"lora": 1}, 2)):
        architecture = place(backbone, **sizes)
        with inject(model, architecture, backbone):
            assert meter.measure(architecture, [0.5])["params"] == architecture.n_params
        assert len(counts) == n_counts


def test_the_backbone_is_timed_without_methods_and_the_merged_model_with_what_stays(monkeypatch):
    model = make()
    backbone = detect(model)
    meter, calls = meter_of(model), {}

    def call_counted(timed, inputs):
        with torch.no_grad():
            calls.setdefault(id(timed), []).append(timed(**inputs).logits)
        return len(calls[id(timed)])

    monkeypatch.setattr(meter, "_time", call_counted)
    with torch.no_grad():
        plain = model(input_ids=meter._batch["input_ids"][:1], attention_mask=meter._batch["attention_mask"][:1]).logits
    architecture = place(backbone, **FOUR)
    with inject(model, architecture, backbone):
        disturb(model)
        meter.measure(architecture, [0.0])
    own, bare = calls.pop(id(model)), calls.popitem()[1]
    assert all(torch.equal(logits, plain) for logits in bare)
    assert not torch.allclose(own[0], plain, atol=1e-3)
    assert torch.equal(own[0], own[2])
    torch.testing.assert_close(own[1], own[0], atol=1e-5 * float(own[0].abs().max()), rtol=0)


def test_a_meter_leaves_no_trace():
    model = make()
    backbone = detect(model)
    meter, architecture = meter_of(model), place(backbone, **FOUR)
    inject(model, architecture, backbone)
    for training in (False, True):
        model.train(training)
        before, generator = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
        meter._counts.clear()
        meter.measure(architecture, [0.1])
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), generator)
        assert all(p.grad is None for p in model.parameters())
        assert all(m.training == training for m in model.modules())


def test_the_reference_batch_is_of_middling_length():
    lengths = [9, 2, 3, 30, 4, 5, 6, 7]
    batch = reference_batch(split_of(lengths), 4)
    assert batch["attention_mask"].sum(1).tolist() == [4, 5, 6, 7]
    assert len(reference_batch(split_of(lengths), 100)["labels"]) == 8


@pytest.fixture(scope="module")
def engine(place):
    _, model, files = place
    task = resolve_task(train=files[0], validation=files[1])
    loaded = load_backbone(str(model), num_labels=2)
    return LocalEngine(
        loaded, Suite(tasks=(task,)), [encode(task, loaded.tokenizer, 32)], TrainingSettings(batch_size=16), CPU, None
    )


def test_a_job_is_the_same_with_and_without_measuring(engine):
    loaded = engine._loaded
    architecture = place(loaded.backbone, **FOUR)
    outcomes, states = [], []
    for measured in (True, False):
        job = Job(architecture=architecture, learning_rate=1e-2, steps=6, evaluations=2, keep_state=True)
        scores = []
        outcomes.append(engine.run(replace(job, measure=measured), lambda step, score, to=scores: to.append(score)))
        states.append((outcomes[-1].states, torch.get_rng_state().tolist(), scores))
    assert states[0] == states[1]
    assert outcomes[0].score == outcomes[1].score
    assert outcomes[0].loss == outcomes[1].loss
    assert set(outcomes[0].measures) == set(MEASURES)
    assert outcomes[1].measures == {}


def test_an_architecture_without_placements_is_measured(engine):
    outcome = engine.run(Job(architecture=Architecture(placements=()), learning_rate=1e-2, steps=2))
    assert outcome.measures["params"] == 0
    assert outcome.measures["merged_latency_s"] == outcome.measures["latency_s"]


def test_memory_on_a_gpu_is_the_allocators_peak_and_the_states(monkeypatch):
    """No GPU here: the two calls of the allocator are stood in for, the step between them is real."""
    model = make()
    backbone = detect(model)
    meter, architecture = meter_of(model), place(backbone, lora=1)
    told = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: told.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: told.append("peak") or 1000)
    loss = meter._loss
    monkeypatch.setattr(meter, "_loss", lambda *given: told.append("step") or loss(*given))
    with inject(model, architecture, backbone):
        assert meter._peak_on_gpu() == 1000 + 2 * 4 * (architecture.n_params + 2 * D + 2)
    assert told == ["reset", "step", "peak"]
    assert all(p.grad is None for p in model.parameters())
