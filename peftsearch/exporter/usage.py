"""README.md of an export: all that the model needs beside its weights, and how to call it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from peftsearch.exporter.formats import FORMATS
from peftsearch.tasks.encoding.encode import separates_pairs

FOLDED = "The mean and the scale of the targets are folded into the head"
"""Line of an export whose outputs are targets."""
_AUTO_CLASSES = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForImageClassification": "AutoModelForImageClassification",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
}
"""transformers' general class for the end of a model's class."""


def needs(task: Mapping[str, Any], tokenizer: Any, *, folded: bool) -> list[str]:
    """What a caller has to do that the files do not do by themselves, a sentence each.

    Args:
        task: Facts of the task that the model was trained on.
        tokenizer: The model's tokenizer or image processor.
        folded: Whether the mean and the scale of a regression are folded into the weights.
    """
    told = []
    if task.get("pairs"):
        if separates_pairs(tokenizer):
            told.append("It reads pairs: give both texts to the tokenizer, in the order of the training.")
        else:
            told.append(
                "It reads pairs, and its tokenizer puts nothing between two texts: join them with a line break "
                'yourself (f"{first}\\n{second}"), as in the training; whatever gets both joins them '
                "otherwise."
            )
    if task.get("max_length") is not None:
        told.append(f"In training, texts were cut at {task['max_length']} tokens (truncation=True, max_length=...).")
    if task.get("kind") == "regression" and "mean" in task:
        outputs = f"Its outputs are standardised: target = {task['mean']!r} + {task['scale']!r} * output."
        told += [] if folded else [outputs]
    return told


def readme(form: str, task: Mapping[str, Any], model: Any, told: list[str]) -> str:
    """The text of README.md.

    Args:
        form: Format of the export.
        task: Facts of the task that the model was trained on.
        model: The exported model.
        told: What `needs` gives, and what the export itself has to say.
    """
    on = f" on {escape(str(task['name']))}" if task.get("name") else ""
    title = f"# {type(model).__name__}, tuned by peftsearch{on}"
    labels = list(task.get("labels") or ())
    lines = [title, "", f"Format: {FORMATS[form]}.", "", "```python", *_call(form, task, model, labels), "```", ""]
    if labels:
        lines += [f"Classes, in the order of the outputs: {', '.join(escape(repr(label)) for label in labels)}.", ""]
    lines += [f"- {line}" for line in told]
    return "\n".join(lines).rstrip() + "\n"


def _call(form: str, task: Mapping[str, Any], model: Any, labels: list[str]) -> list[str]:
    """Python that loads the export from its folder."""
    kind = type(model).__name__
    if form == "merged":
        auto = _auto_class(kind)
        reader = "AutoImageProcessor" if "Image" in auto else "AutoTokenizer"
        return [
            f"from transformers import {auto}, {reader}",
            "",
            f'model = {auto}.from_pretrained(".")',
            f'reader = {reader}.from_pretrained(".")',
        ]
    if form == "peft":
        return _peft_call(kind, task, labels)
    if form == "adapters":
        return ["import adapters", "", "# adapter_config.json is the configuration for model.add_adapter"]
    return ["import peftsearch", "", 'model = peftsearch.load(None, ".").model']


def _auto_class(kind: str) -> str:
    """Transformers' general class for a model's class; the class itself where there is none."""
    return next((name for end, name in _AUTO_CLASSES.items() if kind.endswith(end)), kind)


def _peft_call(kind: str, task: Mapping[str, Any], labels: list[str]) -> list[str]:
    auto = _auto_class(kind).replace("AutoModel", "AutoPeftModel")  # so HF peft names them
    if kind.endswith(("ForSequenceClassification", "ForTokenClassification")):
        ids = {name: i for i, name in enumerate(labels)}
        names = f", id2label={dict(enumerate(labels))}, label2id={ids}" if labels else ""
        names = names.replace("`", "\\x60")  # three of them would end the block
        n = len(labels) or 1
        types = {"regression": "regression", "multi_label": "multi_label_classification"}
        problem = f', problem_type="{types[task["kind"]]}"' if task.get("kind") in types else ""
        # A base that comes with a head of another size would be refused.
        call = f'model = {auto}.from_pretrained(".", num_labels={n}{names}{problem}, ignore_mismatched_sizes=True)'
    elif "Image" in kind:
        auto = "PeftModel"
        call = f'model = {auto}.from_pretrained(base, ".")  # base: the pretrained model with a head of these classes'
    else:
        call = f'model = {auto}.from_pretrained(".")'
    return [f"from peft import {auto}", "", call]
