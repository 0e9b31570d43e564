"""`peftsearch advise`: suggest methods and a budget by a rule of thumb, with the command that tests it."""

from __future__ import annotations

import json as json_text
from dataclasses import replace
from typing import Any

from peftsearch.backbone.named import check_model
from peftsearch.cli.terminal import terminal
from peftsearch.design.advice import SOURCE, Advice, command_to_test
from peftsearch.design.advice import advise as apply_rule
from peftsearch.design.baselines import uniform, usable_methods
from peftsearch.design.budget import parse_budget
from peftsearch.design.fitting import smallest_budget
from peftsearch.methods import METHODS
from peftsearch.options import ModelOptions


def advise(*, examples: int, model: str | None = None, json: bool = False) -> int:
    """Suggest methods and a budget by a rule of thumb, with the command that tests it.

    Args:
        examples: Number of training examples.
        model: Hub id or folder of a model, for the command that tests the advice.
        json: Print JSON.

    Raises:
        PeftSearchError: The number is out of range, or the model's config cannot be read.
    """
    share = ""
    advice = apply_rule(examples, METHODS, METHODS)
    if model is not None:
        check_model(ModelOptions(name=model))
        from peftsearch.backbone.outline import read_outline

        backbone = read_outline(ModelOptions(name=model)).backbone
        advice = apply_rule(examples, METHODS, usable_methods(backbone))
        budget = parse_budget(advice.budget, backbone.n_params)
        needed = min((smallest_budget(uniform(m), backbone) for m in advice.methods), default=0)
        if needed > budget.n_params:  # on a small model, even the cheapest method may exceed the share
            budget = parse_budget(str(needed), backbone.n_params)
            advice = replace(advice, budget=budget.text)
        share = f" ({budget.n_params:,} of {backbone.name}'s {backbone.n_params:,} parameters)"
    command = command_to_test(advice, examples, model)
    if json:
        print(json_text.dumps(_json(advice, examples, command), ensure_ascii=False))
        return 0
    for line in _lines(advice, examples, share, command):
        terminal().print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def _json(advice: Advice, n_examples: int, command: str) -> dict[str, Any]:
    return {
        "examples": n_examples,
        "rule_of_thumb": True,
        "rules": [{"words": rule.words, "methods": [a.name for a in rule.advised]} for rule in advice.rules],
        "untrained": advice.untrained,
        "missing": advice.missing,
        "unusable": advice.unusable,
        "methods": advice.methods,
        "by_rule": advice.by_rule,
        "budget": advice.budget,
        "command": command,
        "source": SOURCE,
    }


def _lines(advice: Advice, n_examples: int, share: str, command: str) -> list[str]:
    said = "; ".join(f"{rule.words}: {', '.join(a.name for a in rule.advised)}" for rule in advice.rules)
    lines = [f"{n_examples:,} {'example' if n_examples == 1 else 'examples'}. A rule of thumb says: {said}."]
    if n_examples < advice.rules[0].least:
        lines.append("The rule does not cover fewer than tens of examples; a score on so few means little.")
    if advice.untrained:
        lines.append(f"Nothing to train or search: {', '.join(advice.untrained)}.")
    if advice.missing:
        lines.append(f"Not in peftsearch yet: {', '.join(advice.missing)}.")
    if advice.unusable:
        lines.append(f"Cannot act on this model: {', '.join(advice.unusable)}.")
    of_kind = "" if advice.by_rule else ", the most similar ones available (our judgement, not part of the rule)"
    if advice.methods:
        lines.append(f"Start from {', '.join(advice.methods)}{of_kind}, at {advice.budget}{share}.")
    else:
        lines.append(f"None of the rule's methods can act here; let the search choose, at {advice.budget}{share}.")
    return [
        *lines,
        f"Source of the rule: {SOURCE}. It is not based on your data.",
        "To test it on your own files, run this command; it compares its best designs with LoRA, adapter, BitFit and "
        "prefix alone at this budget, and confirms them with several seeds:",
        f"  {command}",
    ]
