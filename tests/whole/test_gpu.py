"""What an accelerator alone can show: precision, packing, memory, several workers on one card, a kill in mid-trial.

`pytest -m gpu -n 0 tests/whole/test_gpu.py`; without an accelerator every test is skipped.
"""

from collections import Counter

import pytest
import torch
from torch import nn

from peftsearch.backbone.load import load_backbone
from peftsearch.engine.loop import ALONE, accumulate, adamw, cut
from peftsearch.engine.trainable import checkpointing
from peftsearch.injection.inject import inject, param_groups
from tests.methods import place as place_methods
from tests.methods import settle, shift_in_place
from tests.runs import arguments, call, kill_after, start, story, study

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")]
CUDA = torch.device("cuda")
ON_GPU = ("--device", "cuda", "--dtype", "bf16")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A generator of a few million parameters, so that activations outweigh what the allocator rounds."""
    import transformers

    from tests.generators import IDS, word_tokenizer

    config = transformers.LlamaConfig(
        hidden_size=512, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8,
        max_position_embeddings=1024, **IDS,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("long") / "llama"
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    word_tokenizer(seq2seq=False).save_pretrained(path)
    return path


def load(path, quantize=None):
    return load_backbone(
        path, num_labels=0, problem_type="generation", device=CUDA, quantize=quantize, compute_dtype=torch.bfloat16
    )


def batch_of(n, width):
    ids = torch.randint(4, 90, (n, width), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.roll(-1, 1)}


def token_loss(logits, labels):
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def step(loaded, parts):
    """Loss, gradients and peak memory of one forward and backward pass of LoRA."""
    with inject(loaded.model, place_methods(loaded.backbone, lora=8), loaded.backbone, seed=1):
        settle(loaded.model)
        groups = param_groups(loaded.model, 1e-3, 1e-3)
        params = [p for group in groups for p in group["params"]]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loaded.model.train()
        loss, _ = accumulate(
            loaded.model, parts, params, injected=loaded.model, max_grad_norm=1e9, loss_of=token_loss,
            device=CUDA, autocast=torch.bfloat16, processes=ALONE,
        )  # fmt: skip
        return float(loss), [p.grad.clone() for p in params], torch.cuda.max_memory_allocated() - before


def distance(one, other):
    """The norm of a difference over that of what it differs from: bf16 has no elementwise tolerance."""
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


def test_frozen_weights_are_narrow_and_trained_ones_wide(long):
    loaded = load(long)
    kept = {name: p.clone() for name, p in loaded.model.named_parameters()}
    assert {p.dtype for p in kept.values()} == {torch.bfloat16}
    with inject(loaded.model, place_methods(loaded.backbone, lora=8), loaded.backbone, seed=1):
        groups = param_groups(loaded.model, 1e-2, 1e-3)
        optimizer = adamw(groups, CUDA)
        losses = []
        for _ in range(5):
            params = [p for group in groups for p in group["params"]]
            loss, _ = accumulate(
                loaded.model, [(batch_of(8, 32), 1.0)], params, injected=loaded.model, max_grad_norm=1.0,
                loss_of=token_loss, device=CUDA, autocast=torch.bfloat16, processes=ALONE,
            )  # fmt: skip
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss))
        assert {p.dtype for p in params} == {torch.float32}
        assert {s["exp_avg"].dtype for s in optimizer.state.values()} == {torch.float32}
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, kept[name]) for name, p in loaded.model.named_parameters()), "removal is bit for bit"


def test_full_fine_tuning_trains_wide_copies_and_gives_the_weights_back(long):
    model = load(long).model
    before = [p.clone() for p in model.parameters()]
    shift_in_place(model)
    assert all(torch.equal(p, own) for p, own in zip(model.parameters(), before, strict=True))


def test_nf4_packs_the_maps_and_still_learns(long):
    pytest.importorskip("bitsandbytes")
    plain, packed = load(long), load(long, "nf4")
    one, other = step(plain, [(batch_of(8, 64), 1.0)]), step(packed, [(batch_of(8, 64), 1.0)])
    assert one[0] == pytest.approx(other[0], rel=0.05)
    assert all(g.isfinite().all() for g in other[1])
    assert any(g.abs().max() > 0 for g in other[1])
    bytes_of = [sum(p.numel() * p.element_size() for p in m.model.parameters()) for m in (plain, packed)]
    assert bytes_of[1] < 0.4 * bytes_of[0]


def test_checkpointing_gives_the_gradients_in_less_memory(long):
    loaded, parts = load(long), [(batch_of(16, 256), 1.0)]
    plain = step(loaded, parts)
    with checkpointing(loaded.model, wanted=True):
        kept = step(loaded, parts)
    assert kept[0] == pytest.approx(plain[0], rel=1e-3)
    assert all(distance(one, other) < 0.05 for one, other in zip(kept[1], plain[1], strict=True))
    assert kept[2] < 0.6 * plain[2]


def test_parts_give_the_gradients_in_less_memory(long):
    loaded, batch = load(long), batch_of(16, 256)
    whole, parts = step(loaded, cut(batch, 1)), step(loaded, cut(batch, 4))
    assert parts[0] == pytest.approx(whole[0], rel=1e-2)
    assert all(distance(one, other) < 0.1 for one, other in zip(parts[1], whole[1], strict=True))
    assert parts[2] < 0.5 * whole[2]


def test_a_run_and_what_follows_it(place, tmp_path):
    """Search, training, evaluation, prediction and export: the scores of train and evaluate are the same."""
    _, model, files = place
    assert call(*arguments(model, files, tmp_path, *ON_GPU)) == 0
    assert {t.state.name for t in study(tmp_path / "r").trials} == {"COMPLETE"}
    assert call("train", tmp_path / "r", "--output", tmp_path / "trained", "--steps", "6", *ON_GPU) == 0
    assert call("evaluate", tmp_path / "trained", *ON_GPU) == 0
    written = tmp_path / "predicted.csv"
    assert call("predict", tmp_path / "trained", "--input", files[1], "--output", written, *ON_GPU) == 0
    assert len(written.read_text().splitlines()) == 65
    assert call("export", tmp_path / "trained", "--format", "merged", "--output", tmp_path / "merged") == 0


def test_a_generation(llama, pairs, tmp_path):
    assert call(*arguments(llama, pairs, tmp_path, *ON_GPU, "--kind", "generation", "--trials", "2")) == 0


def test_two_workers_share_the_card(place, tmp_path):
    _, model, files = place
    assert call(*arguments(model, files, tmp_path, "--workers", "2", *ON_GPU)) == 0
    trials = study(tmp_path / "r").trials
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert set(Counter(t.user_attrs["name"] for t in trials).values()) == {1}


def test_ray_gives_each_trial_half_of_the_card(place, tmp_path):
    pytest.importorskip("ray.tune", exc_type=ImportError)
    _, model, files = place
    more = ("--engine", "ray", "--gpus-per-trial", "0.5", "--max-concurrent", "2", "--dtype", "bf16")
    argv = [word for word in arguments(model, files, tmp_path) if word not in ("--device", "cpu", "--dtype", "fp32")]
    process = start([*argv, *more])
    out = process.communicate(timeout=240)[0]
    assert process.returncode == 0, out[-3000:]
    assert {t.state.name for t in study(tmp_path / "r").trials} == {"COMPLETE"}


def test_a_kill_in_mid_trial_loses_nothing(place, tmp_path):
    _, model, files = place
    longer = ("--search-steps", "60", "--steps", "60", *ON_GPU)
    whole, cut_off = tmp_path / "whole", tmp_path / "cut"
    process = start(arguments(model, files, whole, *longer))
    out = process.communicate(timeout=240)[0]
    assert process.returncode == 0, out[-3000:]
    kill_after(start(arguments(model, files, cut_off, *longer)), "trial 3 ", 0.05)
    process = start([*arguments(model, files, cut_off, *longer), "--resume"])
    out = process.communicate(timeout=240)[0]
    assert process.returncode == 0, out[-3000:]
    one, other = story(whole / "r"), story(cut_off / "r")
    assert [row[:3] for row in one] == [row[:3] for row in other], "nothing is lost, doubled or other than it was"
