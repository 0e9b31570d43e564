"""Costs of an architecture, measured in the model it is injected into: FLOPs, disk, memory, seconds.

All trials of a study are measured on one reference batch of its training data: as many examples as a training batch
has, of about median length; latency is measured on one of them, as in serving. Counts (FLOPs, disk, memory) depend on
the architecture alone and are cached for it; times are measured every time. Measuring has no side effects: parameters,
gradients, modes and random generators are unchanged.

Left out: the optimizer step's own FLOPs (element-wise, like everything that torch's counter leaves out), and the pages
and buffers that an allocator adds.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from statistics import median
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from peftsearch.backbone.private_torch import CPU_ATTENTION, CPU_ATTENTION_BACKWARD, by_operator
from peftsearch.backbone.quantised import keeping_inputs, packing_states, packing_tensors, product_flops
from peftsearch.design.architecture import Architecture
from peftsearch.design.memory import ADAM_STATES
from peftsearch.design.references import Reference
from peftsearch.design.shares import n_changed
from peftsearch.engine.loop import forward
from peftsearch.injection.extra_loss import extra_loss
from peftsearch.injection.inject import NAME, injection_of
from peftsearch.injection.merging import merged
from peftsearch.injection.modes import set_training
from peftsearch.injection.states import FORMAT, state
from peftsearch.methods import get_method
from peftsearch.tasks.encoding.encoded import EncodedSplit

ROUNDS = 5, 30
"""Fewest and most forward passes of each kind; the latency is their median."""
LATENCY_SHARE = 0.02
"""Share of the training's time after which no new round starts: longer trials get steadier figures."""
Shape = tuple[int, ...]


def _attention_flops(query: Shape, key: Shape, value: Shape, *args: object, **kwargs: object) -> int:
    """FLOPs of attention, from shapes `(batch, heads, seq, head_dim)`."""
    n_flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]  # torch ships it untyped
    return n_flops


def _attention_backward_flops(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *args: object, **kwargs: object
) -> int:
    """FLOPs of attention's backward pass, which computes the attention weights once more."""
    n_flops: int = sdpa_backward_flop_count(gradient, query, key, value)  # type: ignore[no-untyped-call]  # likewise
    return n_flops


CPU_FORMULAS: dict[str, Callable[..., int]] = {
    CPU_ATTENTION: _attention_flops,
    CPU_ATTENTION_BACKWARD: _attention_backward_flops,
}
"""Formulas of the CPU's attention kernels, which torch's counter lacks; it has those of CUDA."""


def reference_batch(split: EncodedSplit, batch_size: int) -> dict[str, Tensor]:
    """A batch of the examples around the median length, the same on every machine.

    Args:
        split: Training examples.
        batch_size: Number of examples; all of them if there are fewer.

    Returns:
        A batch as `EncodedSplit.collate` makes it.
    """
    order = sorted(range(len(split)), key=lambda i: (split.length(i), i))
    start = max(0, (len(order) - batch_size) // 2)
    return split.collate(order[start : start + batch_size])


def stored_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers as stored, packed or not; shared storages count once."""
    tensors = {t.untyped_storage().data_ptr(): t for t in _tensors_of(model)}
    return sum(t.untyped_storage().nbytes() for t in tensors.values())


class SavedActivations(saved_tensors_hooks):
    """Count the bytes that autograd keeps for the backward pass: each storage once, excluding the model's own."""

    def __init__(self, model: nn.Module) -> None:
        own = {t.untyped_storage().data_ptr() for t in _tensors_of(model)}
        kept: dict[int, torch.UntypedStorage] = {}
        self._kept = kept

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage  # held, so that no later storage can have its address
            return tensor

        super().__init__(pack, _unpack)
        self.keep = pack
        """Function that counts a tensor which is kept without autograd's hooks seeing it."""

    @property
    def n_bytes(self) -> int:
        """Bytes of all storages seen so far."""
        return sum(storage.nbytes() for storage in self._kept.values())


def _unpack(tensor: Tensor) -> Tensor:
    return tensor


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """All tensors that a model holds: parameters, buffers, and the packing data of quantised maps."""
    return chain(model.parameters(), model.buffers(), packing_tensors(model))


class Meter:
    """Measure the architectures that are injected into one model, one after the other.

    Args:
        model: The model, before any architecture is injected.
        split: Training examples, for the reference batch.
        loss_of: Loss of logits `(batch, num_labels)` and labels `(batch,)`.
        batch_size: Examples of a training step.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
        dropout: Whether the frozen backbone drops out in training.
    """

    def __init__(
        self,
        model: nn.Module,
        split: EncodedSplit,
        *,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        batch_size: int,
        device: torch.device,
        autocast: torch.dtype | None = None,
        dropout: bool = False,
    ) -> None:
        self._model = model
        self._dropout = dropout
        self._batch = reference_batch(split, batch_size)
        self._loss_of = loss_of
        self._device = device
        self._autocast = autocast
        self._counts: dict[Architecture | Reference, dict[str, float]] = {}
        # The copy has its own modules and config but shares all tensors (`deepcopy` finds them in its memo), so that
        # the backbone without hooks can be timed while an architecture is injected.
        own = chain(model.parameters(), model.buffers(), packing_states(model))
        shared: dict[int, Any] = {id(each): each for each in own}
        self._bare: nn.Module = copy.deepcopy(model, shared).eval()

    def measure(self, trained: Architecture | Reference, step_s: Sequence[float]) -> dict[str, float]:
        """Measure the architecture in the model.

        Args:
            trained: The architecture that the model carries, or the reference whose weights are trained in place.
            step_s: Seconds of each of its training steps.

        Returns:
            `params` and `changed_params`; `train_flops` of one forward and backward pass and `inference_flops` of one
            forward pass on the reference batch; `disk_bytes` of the trained parameters' file, excluding the head (in
            place: of their values); `step_s`, the median of the training steps; `peak_memory_bytes` (see
            `_count_memory`); `latency_s`, `merged_latency_s` and `backbone_latency_s`, seconds of a forward pass of one
            example in evaluation mode: as injected, with everything foldable folded into the weights, and of the
            backbone alone.
        """
        if trained not in self._counts:
            self._counts[trained] = {"params": trained.n_params} | self._sizes(trained) | self._count()
        placements = trained.placements if isinstance(trained, Architecture) else ()
        merges = any(get_method(placement.method).merges for placement in placements)
        return self._counts[trained] | {"step_s": median(step_s)} | self._latencies(merges, sum(step_s))

    def _sizes(self, trained: Architecture | Reference) -> dict[str, float]:
        if isinstance(trained, Reference):
            width = next(p for p in self._model.parameters() if p.requires_grad).element_size()
            return {"changed_params": trained.n_params, "disk_bytes": trained.n_params * width}
        tuned = {name: value for name, value in state(self._model).items() if name.startswith(f"{NAME}.")}
        return {
            "changed_params": n_changed(trained, injection_of(self._model).backbone),
            "disk_bytes": len(save(tuned, {"format": FORMAT})),
        }

    def _count(self) -> dict[str, float]:
        """FLOPs and memory, from one training step without its update."""
        training, on_gpu = self._model.training, self._device.type == "cuda"
        set_training(self._model, dropout=self._dropout)
        # Dropout draws random numbers, which must not shift those of the trainings to come.
        with torch.random.fork_rng(devices=[self._device] if on_gpu else []):
            products = by_operator("aten", CPU_FORMULAS) | dict(product_flops(self._model))
            counter = FlopCounterMode(display=False, custom_mapping=products)
            activations = SavedActivations(self._model)
            with counter, activations, keeping_inputs(self._model, activations.keep):
                logits, labels = self._forward()
                # Read before the loss, for which `extra_loss` may run a second forward that only training needs.
                inference_flops = counter.get_total_flops()
                loss = self._loss(logits, labels)
                if loss.requires_grad:  # false in the frozen model of a generation task
                    loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
            self._model.zero_grad(set_to_none=True)
            peak = self._peak_on_gpu() if on_gpu else self._count_memory(activations.n_bytes)
        self._model.train(training)
        return {
            "train_flops": counter.get_total_flops(),
            "inference_flops": inference_flops,
            "peak_memory_bytes": peak,
        }

    def _forward(self) -> tuple[Tensor, Tensor]:
        return forward(self._model, self._batch, self._device, self._autocast)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = self._loss_of(logits.float(), labels)
        added = extra_loss(self._model, logits, lambda: self._forward()[0])
        return loss if added is None else loss + added

    def _count_memory(self, n_activations: int) -> int:
        """Peak memory of a training step where no allocator reports it: an upper bound for the tensors.

        It sums weights and buffers, everything that autograd saves for the backward pass (each storage once), and the
        gradients and AdamW states of the trained parameters. Left out: temporaries inside a kernel.
        """
        return stored_bytes(self._model) + n_activations + (1 + ADAM_STATES) * self._trained_bytes()

    def _peak_on_gpu(self) -> int:
        """The allocator's peak over a forward and backward pass, plus the AdamW states, which are already freed."""
        torch.cuda.reset_peak_memory_stats(self._device)
        loss = self._loss(*self._forward())
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
        self._model.zero_grad(set_to_none=True)
        return torch.cuda.max_memory_allocated(self._device) + ADAM_STATES * self._trained_bytes()

    def _trained_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self._model.parameters() if p.requires_grad)

    def _latencies(self, merges: bool, train_s: float) -> dict[str, float]:
        """Medians over rounds, each with one pass of every kind, so that other load on the machine hits all alike."""
        inputs = {k: v[:1].to(self._device) for k, v in self._batch.items() if k != "labels"}
        times: dict[str, list[float]] = {"backbone_latency_s": [], "latency_s": [], "merged_latency_s": []}
        training = self._model.training
        self._model.eval()
        self._time(self._bare, inputs)  # warm-up
        until = time.perf_counter() + LATENCY_SHARE * train_s
        for done in range(ROUNDS[1]):
            if done >= ROUNDS[0] and time.perf_counter() > until:
                break
            times["backbone_latency_s"].append(self._time(self._bare, inputs))
            times["latency_s"].append(self._time(self._model, inputs))
            if merges:
                with merged(self._model):
                    times["merged_latency_s"].append(self._time(self._model, inputs))
        self._model.train(training)
        if not merges:
            times["merged_latency_s"] = times["latency_s"]
        return {name: median(seconds) for name, seconds in times.items()}

    def _time(self, model: nn.Module, inputs: dict[str, Tensor]) -> float:
        """Seconds of one forward pass."""
        self._wait()  # kernels run asynchronously: earlier ones must be done, and below the timed ones too
        started = time.perf_counter()
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None),
        ):
            model(**inputs)
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
