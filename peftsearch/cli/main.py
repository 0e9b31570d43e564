"""The command line. Nothing heavy is imported before a command runs: `peftsearch --help` answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from peftsearch import __version__
from peftsearch.errors import PeftSearchError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0 when all went well, 1 when every trial failed, 2 for a user's fault, 130 when interrupted.
    """
    arguments = parser().parse_args(_join_negative(sys.argv[1:] if argv is None else argv))
    try:
        return _dispatch(arguments)
    except PeftSearchError as error:
        if arguments.debug:
            raise
        print(f"peftsearch: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("peftsearch: interrupted; the same command again goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


_DESIGN = "another confirmed design than the pick: 'trial 14', lora"
METRICS = "accuracy, f1, matthews; pearson, spearman; of a generation perplexity, bleu, rouge_l"
_MAY_BE_NEGATIVE = {"--budget", "--budgets", "--reference"}


def _join_negative(argv: Sequence[str]) -> list[str]:
    """Join `--reference -0.5,100`, whose value argparse would take for an option; and `--budget -1%`, to refuse it."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in _MAY_BE_NEGATIVE and argument[:1] == "-" and argument[1:2].isdigit():
            joined[-1] = f"{joined[-1]}={argument}"
        else:
            joined.append(argument)
    return joined


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "report":
        from peftsearch.cli.report import report

        return report(arguments.run, arguments.output, arguments.storage)
    if arguments.command == "estimate":
        from peftsearch.cli.estimate import report_estimate

        return report_estimate(arguments)
    if arguments.command == "advise":
        from peftsearch.cli.advise import advise

        return advise(arguments)
    if arguments.command == "train":
        from peftsearch.cli.train import train

        return train(arguments)
    if arguments.command == "evaluate":
        from peftsearch.trainer.evaluation import evaluate

        return evaluate(arguments)
    if arguments.command == "predict":
        from peftsearch.trainer.prediction import predict

        return predict(arguments)
    if arguments.command == "export":
        from peftsearch.cli.export import export_arguments

        return export_arguments(arguments)
    from peftsearch.cli import run as commands

    if arguments.command == "run":
        return commands.run(arguments)
    if arguments.command == "pareto":
        from peftsearch.cli.pareto import pareto

        return pareto(arguments)
    if arguments.command == "worker":
        return commands.worker(arguments)
    if arguments.command == "show":
        from peftsearch.cli.show import show

        return show(arguments.what, arguments.design)
    from peftsearch.cli.list import list_catalog

    return list_catalog(arguments)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(
        prog="peftsearch",
        description="Find the best mix of fine-tuning methods for a model, a task and a budget of parameters.",
    )
    top.add_argument("--version", action="version", version=f"peftsearch {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="search, confirm, and write runs/NAME/best.yaml", allow_abbrev=False))
    _add_pareto(commands.add_parser("pareto", help="the front of score and cost", allow_abbrev=False))
    _add_worker(commands.add_parser("worker", help="take part in a run that another process began"))
    _add_train(commands.add_parser("train", help="train in full what a run found", allow_abbrev=False))
    _add_evaluate(commands.add_parser("evaluate", help="score what was trained", allow_abbrev=False))
    _add_predict(commands.add_parser("predict", help="a label or a text for every row", allow_abbrev=False))
    show = commands.add_parser("show", help="draw the architecture that a run found")
    show.add_argument("what", type=Path, metavar="RUN|BEST.YAML", help="folder of a run, or its best.yaml")
    show.add_argument("--design", metavar="NAME", help=_DESIGN)
    _add_report(commands.add_parser("report", help="write a run's report.html", allow_abbrev=False))
    _add_estimate(commands.add_parser("estimate", help="memory of a training step, from a config", allow_abbrev=False))
    _add_advise(commands.add_parser("advise", help="methods to start from, by the number of examples"))
    _add_export(commands.add_parser("export", help="hand what was found to other tools", allow_abbrev=False))
    _add_list(commands.add_parser("list", help="what there is to choose from", allow_abbrev=False))
    return top


def _add_list(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("what", choices=("spaces", "strategies", "methods", "tasks", "objectives"))
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.add_argument("--budget", help="of `methods`: what their sizes are fitted to (default: 0.1%%)")
    _add_model(listing, "the embedded MiniLM-L6; of `methods`, nothing but its config is read")


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("--budget", help="trainable parameters, the head apart: 0.1%%, 22_700, 22.7k, 1M")
    run.add_argument("--resume", action="store_true", help="go on with a study, by --name or the latest")
    run.add_argument(
        "--baselines", metavar="LIST", help="references outside the budget: full, top-2 (the last two blocks)"
    )
    _add_study(run)


def _add_pareto(pareto: argparse.ArgumentParser) -> None:
    pareto.add_argument(
        "what", nargs="*", type=Path, metavar="RUN", help="several budgets, or one of several objectives"
    )
    pareto.add_argument("--budgets", metavar="LIST", help="search at each of these: 0.02%%,0.1%%,1%%")
    pareto.add_argument("--x", default="params", metavar="COST", help="params, latency, memory, ... (default: params)")
    pareto.add_argument("--reference", metavar="SCORE,COST", help="reference point of the hypervolume")
    pareto.add_argument("--out", type=Path, metavar="DIR", help="where the results go (default: beside the runs)")
    pareto.set_defaults(baselines=None)  # of `run` alone: they keep to no budget, and belong on no front
    _add_study(pareto)


def _add_study(run: argparse.ArgumentParser) -> None:
    run.add_argument("--count-head", action="store_true", help="the budget includes the task head")
    _add_model(run, "the embedded MiniLM-L6")
    run.add_argument("--quantize", metavar="HOW", help="nf4 (QLoRA) or int8: keep the frozen weights packed")
    _add_task(run, "the embedded task, see `peftsearch list tasks`")
    search = run.add_argument_group("search")
    search.add_argument("--space", default="s4", help="search space: a name or a YAML (default: %(default)s)")
    search.add_argument("--strategy", default="s4", help="a name or a YAML (default: %(default)s)")
    search.add_argument("--trials", type=int, metavar="N", help="designs to train, baselines and confirmation apart")
    search.add_argument("--steps", type=int, metavar="N", help="optimizer steps at full fidelity")
    search.add_argument("--search-steps", type=int, metavar="N", help="optimizer steps of a trial of the search")
    search.add_argument("--seeds", type=int, metavar="N", help="trainings of each confirmed design")
    search.add_argument("--confirm-baselines", type=int, metavar="N", help="baselines to confirm, best first")
    search.add_argument(
        "--objective", default="score", metavar="NAMES", help="what to optimise: score,params (`list objectives`)"
    )
    search.add_argument("--max-memory", metavar="SIZE", help="most memory of a training step: 8GB, 512MiB")
    search.add_argument(
        "--max-latency-overhead", metavar="PERCENT", help="most latency over the backbone's, merged: 10%%"
    )
    search.add_argument("--seed", type=int, default=0, help="seed of everything (default: %(default)s)")
    training = run.add_argument_group("training")
    training.add_argument("--learning-rate", type=float, metavar="X", help="base rate; methods scale it")
    training.add_argument("--batch-size", type=int, metavar="N")
    training.add_argument("--max-length", type=int, metavar="N", help="tokens after which a text is cut")
    training.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda when there is one)")
    training.add_argument("--dtype", help="auto, fp32 or bf16")
    engine = run.add_argument_group("engine")
    engine.add_argument("--engine", default="local", help="local, or ray for many GPUs (default: %(default)s)")
    engine.add_argument("--ray-address", metavar="ADDRESS", help="auto or HOST:PORT (default: start Ray here)")
    engine.add_argument("--cpus-per-trial", type=float, default=1.0, metavar="N", help="default: %(default)s")
    engine.add_argument("--gpus-per-trial", type=float, metavar="N", help="fractions too (default: 1 if there is any)")
    engine.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time (default: all that fit)")
    where = run.add_argument_group("study")
    where.add_argument("--name", help="folder of the study below --runs (default: made from the settings)")
    where.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s")
    where.add_argument("--storage", default="", metavar="URL", help="Optuna storage (default: SQLite in the folder)")
    where.add_argument("--json", action="store_true", help="print the result as JSON; progress goes to stderr")


def _add_model(command: argparse.ArgumentParser, default: str) -> None:
    model = command.add_argument_group(f"model (default: {default})")
    model.add_argument("--model", help="hub id or folder of a transformers model")
    model.add_argument("--revision", help="commit, tag or branch of a hub model")
    model.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a hub model")
    model.add_argument("--anatomy", type=Path, metavar="YAML", help="describes the blocks of an unknown model")


_FOLDER = "of images a folder with a folder for each class"


def _add_task(command: argparse.ArgumentParser, default: str) -> None:
    task = command.add_argument_group(f"task (default: {default})")
    task.add_argument("--task", help="embedded task, or a hub data set such as glue/sst2; several with commas")
    for split in ("train", "validation", "test"):
        task.add_argument(f"--{split}", type=Path, metavar="FILE", help=f"CSV, TSV, JSONL or Parquet; {_FOLDER}")
    task.add_argument("--text-column", metavar="NAME")
    task.add_argument("--pair-column", metavar="NAME", help="second text of a pair")
    task.add_argument("--label-column", metavar="NAME")
    task.add_argument("--prompt-column", metavar="NAME", help="prompt of a generation")
    task.add_argument("--completion-column", metavar="NAME", help="completion of a generation")
    task.add_argument("--template", metavar="TEXT", help=r"of a generation (default: '{prompt}\n{completion}')")
    task.add_argument("--kind", choices=("classification", "regression", "image", "generation"))
    task.add_argument("--metric", metavar="NAME", help=METRICS)
    task.add_argument("--max-train", type=int, metavar="N", help="most training examples")


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("best", nargs="?", type=Path, metavar="BEST.YAML", help="of a run, or its folder")
    train.add_argument("--design", metavar="NAME", help=_DESIGN)
    train.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the result")
    train.add_argument("--overwrite", action="store_true", help="replace a training in the folder")
    train.add_argument("--resume", action="store_true", help="go on with a training in the folder")
    train.add_argument("--method", metavar="NAME", help="a reference instead: full, top-2, head, lora, ...")
    train.add_argument("--budget", help="of a reference, or of the design on another model: 0.1%%, 22.7k")
    _add_model(train, "the run's")
    _add_task(train, "the run's")
    training = train.add_argument_group("training (defaults: the run's)")
    training.add_argument("--epochs", type=float, metavar="N", help="default: 3")
    training.add_argument("--steps", type=int, metavar="N", help="optimizer steps, instead of epochs")
    training.add_argument("--seeds", type=int, default=1, metavar="K", help="trainings (default: %(default)s)")
    training.add_argument("--seed", type=int, default=0, help="the first of them (default: %(default)s)")
    training.add_argument("--eval-every", type=int, metavar="N", help="steps (default: a tenth of all)")
    training.add_argument("--learning-rate", type=float, metavar="X", help="base rate; methods scale it")
    training.add_argument("--batch-size", type=int, metavar="N", help="examples of a step, over all processes")
    training.add_argument("--max-length", type=int, metavar="N", help="tokens after which a text is cut")
    training.add_argument("--accumulate", type=int, default=1, metavar="N", help="parts of a batch, to save memory")
    training.add_argument("--gradient-checkpointing", action="store_true", help="save memory, for a third more time")
    training.add_argument("--quantize", metavar="HOW", help="nf4 (QLoRA) or int8: keep the frozen weights packed; none")
    training.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda when there is one)")
    training.add_argument("--dtype", help="auto, fp32 or bf16")


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    _add_trained(evaluate)
    evaluate.add_argument("--task", help="embedded task, or a hub data set (default: what it was trained on)")
    evaluate.add_argument(
        "--test", type=Path, metavar="FILE", help=f"CSV, TSV, JSONL or Parquet, with labels; {_FOLDER}"
    )
    evaluate.add_argument("--split", choices=("validation", "test"), help="of the task (default: test, if it has one)")
    evaluate.add_argument("--label-column", metavar="NAME")
    evaluate.add_argument("--completion-column", metavar="NAME", help="references of a generation")
    evaluate.add_argument("--metric", metavar="NAME", help=METRICS)
    evaluate.add_argument("--json", action="store_true", help="print JSON")


def _add_predict(predict: argparse.ArgumentParser) -> None:
    _add_trained(predict)
    predict.add_argument(
        "--input", type=Path, required=True, metavar="FILE", help="CSV, TSV, JSONL or Parquet; or a folder of images"
    )
    predict.add_argument("--output", type=Path, required=True, metavar="FILE", help="CSV, TSV, JSONL or Parquet")
    predict.add_argument("--overwrite", action="store_true", help="replace the output")


def _add_trained(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="DIR", help="the --output of `peftsearch train`")
    command.add_argument("--model", help="where the backbone is now (default: where it was trained from)")
    command.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a hub model")
    command.add_argument("--anatomy", type=Path, metavar="YAML", help="describes the blocks of an unknown model")
    command.add_argument("--text-column", metavar="NAME")
    command.add_argument("--prompt-column", metavar="NAME", help="prompt of a generation")
    command.add_argument("--pair-column", metavar="NAME", help="second text of a pair")
    command.add_argument("--batch-size", type=int, metavar="N")
    command.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda when there is one)")
    command.add_argument("--dtype", help="auto, fp32 or bf16")


def _add_worker(worker: argparse.ArgumentParser) -> None:
    worker.add_argument("run", type=Path, metavar="RUN", help="its folder; made where only --storage is shared")
    worker.add_argument("--storage", default="", metavar="URL", help="the run's Optuna storage, where it has its own")
    worker.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda when there is one)")


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("run", type=Path, metavar="RUN", help="folder of a run, finished or not")
    report.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the folder")
    report.add_argument("--storage", default="", metavar="URL", help="Optuna storage that the run was given")


def _add_estimate(estimate: argparse.ArgumentParser) -> None:
    estimate.add_argument("what", nargs="?", type=Path, metavar="BEST.YAML", help="a found architecture, or its run")
    estimate.add_argument(
        "--model", help="hub id or folder with config.json (default: that of BEST.YAML, or MiniLM-L6)"
    )
    estimate.add_argument("--revision", help="commit, tag or branch of a hub model")
    estimate.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a hub model")
    estimate.add_argument("--anatomy", type=Path, metavar="YAML", help="describes the blocks of an unknown model")
    estimate.add_argument("--budget", help="trainable parameters, the head apart: 0.1%%, 22.7k, 1M")
    estimate.add_argument(
        "--design", metavar="DESIGN", help="lora, adapter+prefix, s4-paper or a YAML (default: lora); of a run: a name"
    )
    estimate.add_argument("--batch", type=int, default=16, metavar="N", help="examples a step (default: %(default)s)")
    estimate.add_argument(
        "--seq", type=int, metavar="N", help="tokens of each (default: 128, or the model's positions)"
    )
    estimate.add_argument("--dtype", default="fp32", help="fp32, bf16 or fp16, all through (default: %(default)s)")
    estimate.add_argument(
        "--quantize", metavar="HOW", help="nf4 or int8: packed frozen maps; none (default: the run's)"
    )
    estimate.add_argument("--full", action="store_true", help="full fine-tuning too, or alone without a budget")
    estimate.add_argument("--json", action="store_true", help="print JSON, in bytes")


def _add_advise(advise: argparse.ArgumentParser) -> None:
    advise.add_argument("--examples", type=int, required=True, metavar="N", help="training examples that you have")
    advise.add_argument("--model", help="hub id or folder, for the command that tests the advice")
    advise.add_argument("--json", action="store_true", help="print JSON")


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("what", type=Path, metavar="RUN|BEST.YAML|DIR", help="of a run, or made by peftsearch.save")
    export.add_argument("--format", required=True, choices=("peft", "adapters", "merged", "peftsearch"))
    export.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    export.add_argument("--design", metavar="NAME", help=_DESIGN)
    export.add_argument("--overwrite", action="store_true", help="replace what is in it")
    export.add_argument("--model", help="hub id or folder of the backbone (default: the one that was used)")
    export.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a hub model")
    export.add_argument("--seed", type=int, metavar="N", help="which confirmed training of a run (default: the first)")
    export.add_argument("--task", metavar="NAME", help="which task of a run with several")


if __name__ == "__main__":
    sys.exit(main())
