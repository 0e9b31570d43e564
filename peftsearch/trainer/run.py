"""Run a training from its options: check, claim the folder, train every seed, write the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from peftsearch.exporter.hub import push
from peftsearch.options import changed_options
from peftsearch.tasks.task import class_counts
from peftsearch.trainer.folder import check_output, claimed, is_finished, read_metrics
from peftsearch.trainer.options import TrainOptions, check_train_options
from peftsearch.trainer.source import read_run
from peftsearch.trainer.tracking import check_trackers, tracking
from peftsearch.units import plural

if TYPE_CHECKING:
    from peftsearch.trainer.plan import Plan


def run_training(options: TrainOptions, say: Callable[[str], None], *, is_first: bool = True) -> dict[str, Any]:
    """Train, or read a finished training of the same options.

    Args:
        options: How to train, and where to write the result.
        say: Receiver of lines of progress.
        is_first: Whether this is the first of several processes, the one that writes.

    Returns:
        The content of `metrics.json`.

    Raises:
        PeftSearchError: The options, the run, the data, the model or the folder cannot be used.
    """
    check_train_options(options)
    if is_first:
        check_output(options.output, options.overwrite, options.resume)
    # Before anything heavy is imported, so that a missing run is refused at once.
    run = None if options.best is None else read_run(options.best, options.design)
    from peftsearch.trainer.plan import prepare
    from peftsearch.trainer.results import train_all

    plan = prepare(options, run)
    for line in _heading(plan):
        say(line)
    claim = claimed(options.output, plan.record, overwrite=options.overwrite, resume=options.resume)
    names = check_trackers(options.track) if is_first else ()
    with claim if is_first else nullcontext():
        plan.processes.wait()  # until the folder exists
        if is_finished(options.output):
            metrics = read_metrics(options.output)
        else:
            where, config = options.output / "tracking", changed_options(options)
            with tracking(names, options.output.name, where, config, say) as log:
                metrics = train_all(plan, options.output, say, log)
    if is_first and options.push_to_hub is not None and metrics["seed"] is not None:
        say(f"Hub: {push(options.output, options.push_to_hub)}")
    return metrics


def _heading(plan: Plan) -> Iterator[str]:
    record = plan.record
    model = record.model
    seeds = plural(len(plan.seeds), "seed")
    share = f"{100 * record.n_params / record.model.n_params:.3g}%"
    head = f" and a head of {model.n_head:,}" if model.n_head else ""
    packed = "" if model.quantize is None else f" in {model.quantize}"
    yield (
        f"{record.method}: {record.n_params:,} trainable parameters ({share}; {record.n_changed:,} "
        f"changed){head} on {model.name}{packed}, {plan.task.name} ({plural(len(plan.task.train), 'example')})"
    )
    yield (
        f"{plural(plan.n_steps, 'step')} of {plan.training.batch_size}, rate {plan.training.learning_rate:g}, "
        f"evaluated every {plan.eval_every}, {seeds}, {record.training.dtype}, "
        f"{plan.processes.n} process{'es' if plan.processes.n > 1 else ''} on {plan.processes.device}"
    )
    if classes := class_counts(plan.task):
        yield f"Classes: {classes}"
    yield from plan.notes
