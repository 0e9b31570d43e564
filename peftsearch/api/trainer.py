"""transformers' Trainer for a model with an architecture in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from peftsearch.errors import CheckpointError, ConfigError
from peftsearch.injection.checkpoint import FACTS, put, read_checkpoint, read_tensors, write_checkpoint
from peftsearch.injection.extra_loss import extra_loss
from peftsearch.injection.inject import NAME, injection_of, param_groups
from peftsearch.injection.modes import set_training


class Trainer(transformers.Trainer):  # type: ignore[misc]  # transformers loads its classes lazily, as Any
    """A `transformers.Trainer` that trains, saves and loads the injected parameters and the head alone.

    Its optimizer has one group for each method, at the method's own rate (`peftsearch.param_groups`); the frozen
    backbone's dropout is off, as in a search; what methods add to the loss is added. A checkpoint holds
    `peftsearch.safetensors` in place of the whole model, and `peftsearch.load` reads it.

    Args:
        model: A model that carries an architecture; see `peftsearch.inject`.
        args: As for `transformers.Trainer`; `learning_rate` is the base rate, which methods multiply.
        head_learning_rate: Learning rate of the task head; None is the base rate.
        dropout: Whether the frozen backbone drops out.
        **kwargs: As for `transformers.Trainer`.

    Raises:
        ConfigError: The model carries no architecture.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Any = None,
        *,
        head_learning_rate: float | None = None,
        dropout: bool = False,
        **kwargs: Any,
    ) -> None:
        if not hasattr(model, NAME):
            raise ConfigError(f"model {type(model).__name__}: carries no architecture; peftsearch.inject it first")
        self._head_rate, self._dropout = head_learning_rate, dropout
        if args is not None and args.n_gpu > 1:
            args._n_gpu = 1  # DataParallel's copies would keep using the first device's parameters
        super().__init__(model=model, args=args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the groups of `peftsearch.param_groups`, or another optimizer that the arguments name."""
        optimizer: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            optimizer = kind(param_groups(self.model, self.args.learning_rate, self._head_rate), **options)
            self.optimizer = optimizer
        return optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of the model, with what the methods add to it in training."""
        training = model.training
        if training:
            set_training(self.accelerator.unwrap_model(model), dropout=self._dropout)
        features = {key: value for key, value in inputs.items() if key != "labels"}
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if training:
            logits = outputs["logits"] if isinstance(outputs, dict) else outputs[1]
            added = extra_loss(self.accelerator.unwrap_model(model), logits, lambda: _logits(model, features))
            if added is not None:
                # A loss that is a mean over all parts of a batch already is not divided by their number later.
                whole = num_items_in_batch is not None and (
                    self.compute_loss_func is not None or self.model_accepts_loss_kwargs
                )
                loss = loss + added / (self.current_gradient_accumulation_steps if whole else 1)
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        if not self.args.should_save:
            return
        folder.mkdir(parents=True, exist_ok=True)
        carried = injection_of(self.accelerator.unwrap_model(self.model))
        write_checkpoint(carried, folder, dict(carried.injected.task))
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._put(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._put(Path(str(self.state.best_model_checkpoint)))

    def _put(self, folder: Path) -> None:
        if not (folder / FACTS).is_file():
            raise CheckpointError(f"{folder}: has no {FACTS}; give a checkpoint that this Trainer saved")
        model = self.accelerator.unwrap_model(self.model)
        checkpoint = read_checkpoint(folder)
        put(model, injection_of(model).backbone, checkpoint, read_tensors(checkpoint))


def _logits(model: nn.Module, features: dict[str, Any]) -> Tensor:
    outputs = model(**features)
    return outputs["logits"] if isinstance(outputs, dict) else outputs[0]  # type: ignore[no-any-return]  # its kind
