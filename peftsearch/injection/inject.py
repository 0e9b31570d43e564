"""Inject an architecture into a loaded model, and remove it.

Methods attach by hooks and never touch the backbone's weights (except inside `merging.merged`), so removal is exact:
it restores `state_dict`, the `requires_grad` flags, the attention implementation and the head, bit for bit. All
trainable parameters except the head's are in one submodule, `model.peftsearch`, where optimizers,
DistributedDataParallel and Trainer find them.

Gradient checkpointing works as on any frozen model: the reentrant kind needs `model.enable_input_require_grads()`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.anatomy import Backbone, Block
from peftsearch.backbone.detect import detect
from peftsearch.backbone.private_torch import forget_compiled
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.errors import MethodError
from peftsearch.injection.rates import size_factors
from peftsearch.methods import get_method, rank_of
from peftsearch.methods.abilities import Mixed, Penalised, Routed, Sharing, count_placed, is_placed, sharing_key
from peftsearch.methods.method import Method

NAME = "peftsearch"
"""The submodule of the model that holds the injected parameters."""


class Injected(nn.ModuleDict):
    """All injected parameters, keyed by `STACK_BLOCK_METHOD`, and the data needed to remove them."""

    def __init__(
        self, architecture: Architecture, backbone: Backbone, flags: dict[str, bool], head: dict[str, torch.Tensor]
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = backbone
        self.task: dict[str, Any] = {}
        """Facts of the head's task (name, kind, labels, metric), where known; saved with the parameters."""
        self.flags = flags
        """`requires_grad` of each parameter of the model before injection."""
        self.head = head
        """Copies of the head's parameters before injection."""
        self.methods: dict[str, str] = {}
        """Name of the method of each key."""
        self.firsts: dict[Hashable, nn.Module] = {}
        """The module whose parameters others share, by `abilities.sharing_key`."""
        self.undo: list[Callable[[], object]] = []
        self.penalised: list[Penalised] = []
        """The modules that add a penalty to the loss; cached, since every training step needs them."""
        self.routes = False
        """Whether a module draws a random path in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Injection:
    """An architecture inside a model; leaving its `with` block removes it."""

    model: nn.Module = field(repr=False)
    architecture: Architecture
    backbone: Backbone = field(repr=False)
    injected: Injected = field(repr=False)

    def remove(self) -> None:
        """Remove the architecture; does nothing if it is already removed."""
        if getattr(self.model, NAME, None) is self.injected:
            remove(self.model)

    @property
    def n_params(self) -> int:
        """Number of trainable parameters, excluding the task head."""
        return self.architecture.n_params

    def optimizer_groups(self, lr: float, head_lr: float | None = None) -> list[dict[str, Any]]:
        """Parameter groups for AdamW, each method at its own multiple of the base rate; see `param_groups`.

        Args:
            lr: The base learning rate.
            head_lr: Learning rate of the task head; None is the base rate.
        """
        return param_groups(self.model, lr, head_lr)

    def print_trainable_parameters(self) -> None:
        """Print the number of trainable parameters, in the words of HF peft."""
        head = sum(value.numel() for value in self.injected.head.values())
        n_all = self.backbone.n_params
        share = f"{100 * self.n_params / n_all:.4f}"
        print(
            f"trainable params: {self.n_params:,} || all params: {n_all + self.n_params:,} || trainable%: {share}"
            + (f" || head: {head:,}" if head else "")
        )

    def __enter__(self) -> Injection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


def inject(model: nn.Module, architecture: Architecture, backbone: Backbone | None = None, seed: int = 0) -> Injection:
    """Freeze a model and put an architecture into it; the parameters of its head stay trainable.

    Args:
        model: A transformers model, without an architecture in it.
        architecture: The architecture; nothing is changed unless all of it fits.
        backbone: The model's anatomy; None detects it.
        seed: Seed of the initial values; the global random generators are left unchanged.

    Raises:
        MethodError: The model already carries an architecture, or a placement does not fit the backbone.
    """
    if hasattr(model, NAME):
        raise MethodError("the model already carries an architecture: remove(model) first")
    backbone = detect(model) if backbone is None else backbone
    forget_compiled()
    placements = _check(architecture, backbone)
    head = [f"{path}.{name}" for path in backbone.head for name, _ in model.get_submodule(path).named_parameters()]
    injected = _freeze(model, architecture, backbone, head)
    try:
        with torch.random.fork_rng(devices=[]):
            # Only the CPU's generator: torch.manual_seed would reseed the accelerators too.
            torch.default_generator.manual_seed(seed)
            for placement, block in placements:
                _attach(model, injected, placement, block)
        injected.penalised = [module for module in injected.modules() if isinstance(module, Penalised)]
        injected.routes = any(isinstance(module, Routed) for module in injected.modules())
        n_trainable = sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and name not in head)
        assert n_trainable == architecture.n_params, f"{n_trainable} trainable, {architecture.n_params} predicted"
    except BaseException:
        remove(model)
        raise
    return Injection(model=model, architecture=architecture, backbone=backbone, injected=injected)


def injection_of(model: nn.Module) -> Injection:
    """The injection that a model carries, for code that has only the model.

    Raises:
        MethodError: The model carries no architecture.
    """
    injected = _injected(model)
    return Injection(model=model, architecture=injected.architecture, backbone=injected.backbone, injected=injected)


def remove(model: nn.Module) -> None:
    """Remove the injected architecture and restore the head, to the state before `inject`.

    Raises:
        MethodError: The model carries no architecture.
    """
    injected = _injected(model)
    forget_compiled()
    for undo in reversed(injected.undo):
        undo()
    delattr(model, NAME)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(injected.flags[name])
        if name in injected.head:
            parameter.grad = None
            with torch.no_grad():
                parameter.copy_(injected.head[name])


def param_groups(model: nn.Module, lr: float, head_lr: float | None = None) -> list[dict[str, Any]]:
    """Group the trainable parameters for AdamW: one group per method, then the head, all without weight decay.

    Args:
        model: A model with an architecture in it.
        lr: The base learning rate, which every method scales by its own constant and its size; see `rates`.
        head_lr: Learning rate of the head; None is the base rate.

    Returns:
        Non-empty groups with `name`, `params`, `lr` and `weight_decay`; a method whose blocks differ in size has
        several.
    """
    injected = _injected(model)
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    factors = size_factors(injected.architecture, injected.backbone)
    seen: set[int] = set()  # placements may share parameters
    for key, module in injected.items():
        for name, scale, part in _parts(get_method(injected.methods[key]), module, factors[key]):
            own = [p for p in part.parameters() if id(p) not in seen]
            seen.update(map(id, own))
            groups.setdefault((name, lr * scale), []).extend(own)
    head = [p for name, p in model.named_parameters() if name in injected.head]
    groups["head", lr if head_lr is None else head_lr] = head
    return [
        {"name": name, "params": params, "lr": rate, "weight_decay": 0.0}
        for (name, rate), params in groups.items()
        if params
    ]


def _parts(method: Method, module: nn.Module, factor: float) -> Iterator[tuple[str, float, nn.Module]]:
    """Name, rate and module of each part with its own learning rate: a method, or each part of a mixed one.

    Args:
        method: The method.
        module: Its module.
        factor: Factor on rates that follow the size.
    """
    if isinstance(method, Mixed):
        for part in method.parts:
            scale = method.lr_scale * part.lr_scale * (factor if part.lr_follows_size else 1.0)
            yield f"{method.name}.{part.name}", scale, module.get_submodule(part.name)
    else:
        yield method.name, method.lr_scale * factor, module


def _injected(model: nn.Module) -> Injected:
    injected = getattr(model, NAME, None)
    if not isinstance(injected, Injected):
        raise MethodError("the model carries no architecture: inject(model, architecture) first")
    return injected


def _check(architecture: Architecture, backbone: Backbone) -> list[tuple[Placement, Block]]:
    """Check every placement against the backbone; return the placements with their blocks in order of attachment."""
    blocks = {(block.stack, block.index): (position, block) for position, block in enumerate(backbone.blocks)}
    found: dict[tuple[int, tuple[int, str]], tuple[Placement, Block]] = {}
    for placement in architecture.placements:
        where = f"{placement.stack} block {placement.block}, {placement.method}"
        position, block = blocks.get((placement.stack, placement.block), (-1, None))
        if block is None:
            stacks = ", ".join(f"{stack.name} 0 to {len(stack.blocks) - 1}" for stack in backbone.stacks)
            raise MethodError(f"{where}: no such block (the backbone has {stacks})")
        order = (position, rank_of(get_method(placement.method).name))
        if order in found:
            raise MethodError(f"{where}: placed twice")
        found[order] = (placement, block)
    placed = [found[order] for order in sorted(found)]
    firsts: dict[Hashable, Placement] = {}
    for placement, block in placed:
        first = firsts.setdefault(_sharing_key(placement), placement)
        _check_placement(placement, block, backbone.blocks[0], first)
    return placed


def _sharing_key(placement: Placement) -> Hashable:
    return sharing_key(get_method(placement.method), placement.stack, placement.group)


def _check_placement(placement: Placement, block: Block, first_block: Block, first: Placement) -> None:
    """Check one placement.

    Args:
        placement: The placement.
        block: Its block.
        first_block: The first block of the backbone.
        first: The first placement that shares parameters with it, or itself.
    """
    where = f"{placement.stack} block {placement.block}, {placement.method}"
    method = get_method(placement.method)
    if not is_placed(method, block, first_block):
        raise MethodError(f"{where}: acts once per model; place it on the first block")
    obstacle = method.obstacle(block)
    if obstacle is not None:
        raise MethodError(f"{where}: {obstacle}")
    largest = method.max_size(block)
    if not 1 <= placement.size <= largest:
        raise MethodError(f"{where}: {method.knob} {placement.size} is outside 1 to {largest}")
    if isinstance(method, Sharing) and method.per_group and placement.size != first.size:
        raise MethodError(
            f"{where}: {method.knob} {placement.size} differs from {first.size} on {first.stack} block {first.block}, "
            "with which it shares parameters"
        )
    n_params = count_placed(method, block, placement.size, placement is first)
    if placement.n_params != n_params:
        label = method.label(block, placement.size)
        raise MethodError(f"{where}: {label} has {n_params} parameters, the architecture says {placement.n_params}")


def _freeze(model: nn.Module, architecture: Architecture, backbone: Backbone, head: list[str]) -> Injected:
    """Register the empty `Injected` and leave only the head trainable."""
    parameters = dict(model.named_parameters())
    copies = {name: p.detach().clone() for name, p in parameters.items() if name in head}
    flags = {name: p.requires_grad for name, p in parameters.items()}
    injected = Injected(architecture, backbone, flags, copies)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in copies)
    model.add_module(NAME, injected)
    injected.undo.append(model.register_forward_pre_hook(_refuse_replica).remove)
    return injected


def _refuse_replica(model: nn.Module, inputs: object) -> None:
    """Refuse to run in a copy that `nn.DataParallel` made: its hooks would use the first device's parameters.

    Raises:
        MethodError: It is such a copy.
    """
    if getattr(model, "_is_replica", False):
        raise MethodError(
            "nn.DataParallel cannot train an injected model; start one process a GPU with `accelerate launch`, or use "
            "peftsearch.Trainer, which takes one GPU of a process"
        )


def _attach(model: nn.Module, injected: Injected, placement: Placement, block: Block) -> None:
    """Attach one placement, in float32 on the block's device."""
    method = get_method(placement.method)
    attachment = method.attach(model, block, placement.size)
    injected.undo += attachment.undo
    key = placement.key
    device = next(model.get_submodule(block.path).parameters()).device
    module = attachment.module.to(device=device, dtype=torch.float32).train(model.training)
    if isinstance(method, Sharing):
        first = injected.firsts.setdefault(_sharing_key(placement), module)
        if first is not module:
            if next(first.parameters()).device != device:
                raise MethodError(
                    f"{placement.method}: its blocks lie on several GPUs, and what they share can lie on one alone; "
                    "leave it out, or take a single GPU"
                )
            method.share(first, module)
    injected[key] = module
    injected.methods[key] = placement.method
