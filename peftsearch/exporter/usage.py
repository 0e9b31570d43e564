"""README.md of an export: all that the model needs beside its weights, and how to call it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from peftsearch.exporter.formats import FORMATS
from peftsearch.tasks.encoding.encoded import separates_pairs
from peftsearch.tasks.encoding.spans import MOST_TOKENS
from peftsearch.tasks.reading.pairs import CHAT

FOLDED = "The mean and the scale of the targets are folded into the head"
"""Line of an export whose outputs are targets."""
_AUTO_CLASSES = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
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
    template = task.get("template")
    if template == CHAT:
        told.append("It reads chats: give them to the tokenizer's chat template, with add_generation_prompt=True.")
    elif template:
        told.append(f"It continues prompts in the template of its training: {template!r}.")
    if task.get("max_new_tokens"):
        told.append(f"Its texts had at most {task['max_new_tokens']} new tokens (max_new_tokens).")
    if task.get("kind") == "tagging":
        told.append(
            "It reads words joined by spaces; the tag of a word is that of its first token (in a pipeline "
            'aggregation_strategy="first").'
        )
    if task.get("kind") == "question_answering":
        told.append(
            "It reads a question and its context, and its outputs are of the first and the last token of the answer; "
            f"answers have at most {MOST_TOKENS} tokens, and the first token of the input stands for none."
        )
    if task.get("kind") == "multi_label":
        told.append("Every class has a probability of its own (sigmoid); predicted are those of at least a half.")
    if task.get("pairs") and task.get("kind") != "generation":
        if separates_pairs(tokenizer):
            told.append("It reads pairs: give both texts to the tokenizer, in the order of the training.")
        else:
            told.append(
                "It reads pairs, and its tokenizer puts nothing between two texts: join them with a line break "
                'yourself (f"{first}\\n{second}"), as in the training; whatever gets both joins them '
                "otherwise."
            )
    if task.get("max_length") is not None and not task.get("images"):
        told.append(f"In training, texts were cut at {task['max_length']} tokens (truncation=True, max_length=...).")
    if task.get("kind") == "regression" and "mean" in task:
        outputs = f"Its outputs are standardised: target = {task['mean']!r} + {task['scale']!r} * output."
        told += [] if folded else [outputs]
    if task.get("dtype") in ("bf16", "fp16", "bfloat16", "float16"):
        told.append(f"It was trained with {task['dtype']} products; in float32 its outputs differ a little.")
    return told


def readme(form: str, task: Mapping[str, Any], kind: str, told: list[str]) -> str:
    """The text of README.md.

    Args:
        form: Format of the export.
        task: Facts of the task that the model was trained on.
        kind: Name of the exported model's class.
        told: What `needs` gives, and what the export itself has to say.
    """
    on = f" on {escape(str(task['name']))}" if task.get("name") else ""
    title = f"# {kind}, tuned by peftsearch{on}"
    labels = list(task.get("labels") or ())
    lines = [title, "", f"Format: {FORMATS[form]}.", "", "```python", *_call(form, task, kind, labels), "```", ""]
    return "\n".join(lines) + needs_section(task, told)


def needs_section(task: Mapping[str, Any], told: list[str]) -> str:
    """The end of a README.md: the classes, and what a caller has to do.

    Args:
        task: Facts of the task that the model was trained on.
        told: Sentences for the caller.
    """
    names = ", ".join(escape(repr(label), quote=False) for label in task.get("labels") or ())
    lines = [*([f"Classes, in the order of the outputs: {names}.", ""] if names else []), *(f"- {t}" for t in told)]
    return "\n" + "\n".join(lines).rstrip() + "\n"


def _call(form: str, task: Mapping[str, Any], kind: str, labels: list[str]) -> list[str]:
    """Python that loads the export from its folder."""
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
        return [
            "from adapters import AdapterConfig",
            "",
            "# for this file and every other one like it, whose names are below",
            'model.add_adapter("name", AdapterConfig.load("adapters.json"))',
        ]
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
