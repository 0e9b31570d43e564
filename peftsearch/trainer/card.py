"""The model card of a training: README.md with the front matter for the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from peftsearch.backbone.demo import DEMO
from peftsearch.design.references import is_in_place, n_top
from peftsearch.tasks.reading.hub import parse_address
from peftsearch.tasks.text_metrics import PACKAGES
from peftsearch.trainer.record import TrainedTask, TrainingRecord
from peftsearch.units import Scores, plural

HUB_METRICS = {
    "accuracy": "accuracy", "f1": "f1", "matthews": "matthews_correlation", "pearson": "pearsonr",
    "spearman": "spearmanr", "perplexity": "perplexity", "bleu": "bleu", "rouge_l": "rouge",
}  # fmt: skip
"""The hub's name of each metric."""
DEMO_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
"""The hub's name of the embedded model."""


def model_card(record: TrainingRecord, metrics: Mapping[str, Any]) -> str:
    """Write the card of a finished training; unknown facts (language, licence) are left out.

    Args:
        record: Content of `training.yaml`.
        metrics: Content of `metrics.json`.
    """
    from huggingface_hub import ModelCard

    return str(ModelCard(f"---\n{_front_matter(record, metrics)}\n---\n\n{_text(record, metrics)}"))


def _front_matter(record: TrainingRecord, metrics: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    task, base = record.task, _hub_name(record.model.name)
    dataset, config = _dataset(task)
    scored = _scored(task, metrics)
    results = [
        EvalResult(
            task_type=_pipeline(task),
            dataset_type=dataset or task.name,
            dataset_name=task.name,
            dataset_config=config,
            dataset_split=split,
            metric_type=HUB_METRICS[metric],
            metric_value=round(scores["mean"], 6),
            metric_name=f"{metric}, mean of {plural(scores['n'], 'training')}",
        )
        for metric, split, scores in scored
        if metric in HUB_METRICS
    ]
    whole = is_in_place(record.method)
    data = ModelCardData(
        base_model=base,
        library_name="transformers" if whole else "peftsearch",
        pipeline_tag=_pipeline(task),
        tags=["peftsearch", *([] if whole else ["parameter-efficient-fine-tuning", *_methods(record)])],
        datasets=[dataset] if dataset else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)),
        model_name=_title(record),
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _pipeline(task: TrainedTask) -> str:
    """The hub's name of the kind of task."""
    if task.kind == "generation":
        return "text-generation"
    if task.kind == "tagging":
        return "token-classification"
    if task.kind == "question_answering":
        return "question-answering"
    return "image-classification" if task.images else "text-classification"


def _scored(task: TrainedTask, metrics: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Metric, split and scores of every measured metric."""
    scored = [(str(task.metric), split, metrics[split]) for split in ("validation", "test") if metrics[split]]
    texts = metrics.get("texts") or {}
    named = [name for name in ("perplexity", *PACKAGES) if texts.get(name) and name != task.metric]
    return scored + [(name, str(texts["split"]), texts[name]) for name in named]


def _text(record: TrainingRecord, metrics: Mapping[str, Any]) -> str:
    task, training, model = record.task, record.training, record.model
    share = f"{100 * record.n_params / model.n_params:.3g}%"
    how = model.quantize
    packed = "" if how is None else f", the frozen ones packed in {how} by bitsandbytes"
    head = f" and a head of {model.n_head:,}" if model.n_head else ""
    rows = [f"| {split} | {metric} | {Scores.from_dict(scores)} |" for metric, split, scores in _scored(task, metrics)]
    inputs = "prompts" if task.kind == "generation" else "texts"
    lines = [
        f"# {escape(_title(record))}",
        "",
        f"{escape(model.name)} ({model.model_type}, {model.n_params:,} parameters{packed}), trained on "
        f"{escape(task.name)} ({escape(task.source)}) with {record.n_params:,} trainable parameters ({share}){head}, "
        f"{record.n_changed:,} in which the result differs from the model or adds to it.",
        "",
        "| split | metric | score |",
        "|---|---|---|",
        *rows,
        "",
        f"Mean ± standard deviation over n trainings. The weights here are those of seed {metrics['seed']}, the best "
        "on validation; the validation score also selected the step to keep. The test split was read once, at the end.",
        "",
        "## Use",
        "",
        "```bash",
        f"peftsearch predict . --input {'images/' if task.images else f'{inputs}.csv'} --output predictions.csv",
        "```",
        "",
        *_unit(task),
        "## What is tuned",
        "",
        *_architecture(record),
        "",
        "## Training",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in asdict(training).items()),
        f"- seeds: {record.seed} to {record.seed + record.seeds - 1}",
        *(f"- labels: {', '.join(map(escape, task.labels))}" for _ in task.labels[:1]),
        *(f"- data: {escape(note)}" for note in task.notes),
        "",
        "Made by peftsearch; `training.yaml` has all settings, `metrics.json` every seed, `curve.csv` every step.",
        "",
    ]
    return "\n".join(lines)


def _unit(task: TrainedTask) -> list[str]:
    """The meaning of the outputs of a regression."""
    if task.target is None:
        return []
    mean, scale = task.target.mean, task.target.scale
    return [
        f"`predict` gives targets; the model's own outputs are standardised: target = {mean:g} + {scale:g} output.",
        "",
    ]


def _architecture(record: TrainingRecord) -> list[str]:
    if record.architecture is None:
        n_blocks = n_top(record.method)
        return ["All parameters (full fine-tuning)." if n_blocks is None else f"The top {n_blocks} blocks in full."]
    blocks = record.architecture["blocks"]
    if not blocks:
        return ["Only the task head."]
    rows = [
        f"| {entry['stack']} {entry['block']} | "
        + ", ".join(f"{method} {facts['label']} ({facts['n_params']:,})" for method, facts in entry["methods"].items())
        + " |"
        for entry in blocks
    ]
    return ["| block | methods, sizes and parameters |", "|---|---|", *rows]


def _methods(record: TrainingRecord) -> list[str]:
    blocks = record.architecture["blocks"] if record.architecture else []
    return sorted({method for entry in blocks for method in entry["methods"]})


def _title(record: TrainingRecord) -> str:
    return f"{record.model.name.rstrip('/').split('/')[-1]} on {record.task.name}"


def _hub_name(name: str) -> str | None:
    """The hub's name of the model; None for a folder."""
    if name == DEMO:
        return DEMO_HUB_NAME
    return None if Path(name).expanduser().exists() else name


def _dataset(task: TrainedTask) -> tuple[str | None, str | None]:
    """The hub's name and configuration of the data set; None for data from elsewhere."""
    kind, _, name = str(task.source).partition(" ")
    if kind != "hub":
        return None, None
    address = parse_address(name)
    return address.path, address.config
