"""Workers of Ray: each builds its engine once from the object store and trains one job after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from traceback import format_exc
from typing import Any

import torch
from ray import tune

from peftsearch.backbone.load import LoadedBackbone
from peftsearch.engine.job import Job, Outcome
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.probe import HeadStart
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import internal_error, is_defect, one_line
from peftsearch.searcher.prepare import Setup
from peftsearch.tasks.encoding.encoded import EncodedTask
from peftsearch.tasks.suite import Suite


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineParts:
    """Parts of an engine, which travel to the workers through the object store."""

    loaded: LoadedBackbone
    suite: Suite
    encoded: tuple[EncodedTask, ...]
    settings: TrainingSettings
    autocast: torch.dtype | None
    heads: tuple[HeadStart | None, ...]

    @classmethod
    def of(cls, setup: Setup, heads: Sequence[HeadStart | None]) -> EngineParts:
        """The parts for a study's engine, on the CPU.

        Args:
            setup: The settings of the study.
            heads: What the head of each task starts from.
        """
        loaded = replace(setup.loaded, model=setup.loaded.model.to("cpu"), tokenizer=None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the workers may share the driver's GPU
        return cls(
            loaded=loaded,
            suite=setup.suite,
            encoded=setup.encoded,
            settings=setup.training,
            autocast=setup.autocast,
            heads=tuple(
                None if head is None else {name: value.cpu() for name, value in head.items()} for head in heads
            ),
        )

    def build(self, device: torch.device) -> LocalEngine:
        """Build an engine on a device."""
        loaded = replace(self.loaded, model=self.loaded.model.to(device))
        return LocalEngine(loaded, self.suite, self.encoded, self.settings, device, self.autocast, self.heads)


class JobTrainable(tune.Trainable):  # type: ignore[misc]  # ray ships no complete types
    """Train one job after the other in a worker; a step of Tune trains up to the next validation."""

    def setup(self, config: dict[str, Any], parts: EngineParts, n_threads: int, cuda: bool) -> None:
        """Build the engine, once for all jobs of this worker."""
        torch.set_num_threads(n_threads)
        self._engine = parts.build(torch.device("cuda" if cuda else "cpu"))
        self._stages: Any = None

    def step(self) -> dict[str, Any]:
        """Train up to the next validation or to the end.

        Returns:
            `opt_step` and `score`; or `done` with `outcome`, or with the reason under `failed` or `defect`.
        """
        job: Job = self.config["job"]
        if self._stages is None:
            self._stages = self._engine.stages(job)
        try:
            step, score = next(self._stages)
        except StopIteration as end:
            outcome: Outcome = end.value
            return self._ended({"outcome": outcome})
        except Exception as error:  # only this trial fails: the worker goes on
            if is_defect(error):
                return self._ended({"defect": str(internal_error(error, resumes=True)), "traceback": format_exc()})
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return self._ended({"failed": f"{type(error).__name__}: {one_line(error)}"})
        return {"opt_step": step, "score": score}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job, after restoring the backbone from a stopped one."""
        self.cleanup()
        return True

    def cleanup(self) -> None:
        """End the job."""
        if self._stages is not None:
            self._stages.close()
            self._stages = None

    def _ended(self, result: dict[str, Any]) -> dict[str, Any]:
        self._stages = None
        return {**result, "done": True}
