"""The processes that train a model together: one, or as many as `accelerate launch` starts.

Every process holds the whole model and computes its share of each batch; gradients are averaged by
DistributedDataParallel. Only the first writes and prints.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.device import choose_device
from peftsearch.errors import ConfigError

_SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What accelerate tells of in its processes' environment, and cannot be used here."""


class Processes:
    """This process, among those that train together.

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or None for CUDA if available.
        unused: Whether some trained parameters may be unused in a step, as under full fine-tuning.

    Raises:
        ConfigError: The device does not exist, several processes would share one, or accelerate would shard weights.
    """

    def __init__(self, device: str | None, unused: bool) -> None:
        chosen = choose_device(device)
        for name, words in _SHARDED.items():
            if os.environ.get(name, "false").lower() in ("true", "1", "yes"):
                raise ConfigError(
                    f"accelerate launch: {words} shards the weights, and methods are attached to whole maps; launch "
                    "without it (DistributedDataParallel), pack the frozen weights (--quantize nf4), or spread the "
                    "model over the GPUs in one process (--device-map auto)"
                )
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if several and chosen.index is not None:
            raise ConfigError(
                f"--device {device}: each process of `accelerate launch` has its own; leave the number out"
            )
        self._accelerator: Any = _accelerator(chosen, unused) if several else None
        """None for a single process, which needs none: accelerate keeps one state for all its users in a process, and
        refuses a second user with other settings, such as a Trainer in bf16."""
        self.n: int = self._accelerator.num_processes if several else 1
        """Number of processes."""
        self.index: int = self._accelerator.process_index if several else 0
        """Index of this process, from 0."""
        self.device: torch.device = self._accelerator.device if several else chosen

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.index == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap a model for training by several processes; a single process gets the model itself."""
        if self._accelerator is None:
            return model
        wrapped: nn.Module = self._accelerator.prepare(model)
        return wrapped

    def release(self) -> None:
        """Free the memory of wrapped models."""
        if self._accelerator is not None:
            self._accelerator.free_memory()

    def apart(self, model: nn.Module) -> AbstractContextManager[None]:
        """Keep gradients in this process while the context is open, without averaging them."""
        if self._accelerator is None:
            return nullcontext()
        context: AbstractContextManager[None] = self._accelerator.no_sync(model)
        return context

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of a loss `()`."""
        if self._accelerator is None:
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
        else:
            self._accelerator.backward(loss)

    def sum(self, value: Tensor) -> Tensor:
        """Sum a value over all processes; the result is on the value's own device."""
        if self._accelerator is None:
            return value
        total: Tensor = self._accelerator.reduce(value.to(self.device), reduction="sum")
        return total.to(value.device)

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def _accelerator(device: torch.device, unused: bool) -> Any:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # The forward pass has its own autocast, the same as in a search: accelerate's would wrap the model's forward.
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no",
        device_placement=False,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused, broadcast_buffers=False)],
    )
