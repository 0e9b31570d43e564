"""Methods and budget to start from for a number of examples: a rule of thumb, and a command to test it.

The rule comes from the project's notes on methods (methods.md, "Which method for how much data"): "Tens to hundreds of
examples: prompting, IA3. Hundreds to thousands: prompt tuning, IA3. More: LoRA, adapters." No measurement backs it.
Its words overlap, and so do the ranges here: tens are 10 to 99, hundreds 100 to 999, thousands 1,000 to 9,999. The
budgets are shares that the survey arXiv 2303.15647 tabulates for these methods.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from math import inf

from peftsearch.errors import ConfigError

SOURCE = (
    'methods.md, "Which method for how much data" (a rule of thumb without a measurement); shares of parameters: the '
    "survey arXiv 2303.15647"
)
MOST_EXAMPLES = 10**12
"""Largest number of examples that is accepted; a larger one is taken for a typing error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advised:
    """One method of the rule."""

    name: str
    """Name in the rule: `prompt tuning`."""
    methods: tuple[str, ...]
    """Matching methods of the table, first choice first; empty where nothing is trained."""
    nearest: tuple[str, ...] = ()
    """Similar methods to fall back on: a judgement, not part of the rule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One sentence of the rule of thumb."""

    words: str
    least: int
    """Fewest examples that the sentence covers."""
    most: float
    """Most examples that the sentence covers."""
    advised: tuple[Advised, ...]
    budget: str
    """Share of the backbone to start from."""


_IA3 = Advised(name="IA3", methods=("ia3",), nearest=("bitfit",))  # both train a vector per map
_PROMPTING = Advised(name="prompting", methods=())
_PROMPT_TUNING = Advised(name="prompt tuning", methods=("prompt", "prompt_tuning"), nearest=("prefix",))
RULES = (
    Rule(words="tens to hundreds of examples", least=10, most=999, advised=(_PROMPTING, _IA3), budget="0.1%"),
    Rule(words="hundreds to thousands", least=100, most=9_999, advised=(_PROMPT_TUNING, _IA3), budget="0.1%"),
    Rule(
        words="more",
        least=10_000,
        most=inf,
        advised=(
            Advised(name="LoRA", methods=("lora",)),
            Advised(name="adapters", methods=("adapter", "adapter_pfeiffer")),
        ),
        budget="0.5%",
    ),
)
"""The rule. Shares of the survey: 0.1% is prompt tuning's and the lowest of adapters, 0.5% the highest of LoRA."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """The rule of thumb applied to a number of examples."""

    rules: tuple[Rule, ...]
    """The sentences that cover this number; the first sentence for fewer than 10 examples."""
    untrained: tuple[str, ...]
    """Advised methods that train nothing."""
    missing: tuple[str, ...]
    """Advised methods that are not in the table."""
    unusable: tuple[str, ...]
    """Advised methods of the table that cannot act on the model."""
    methods: tuple[str, ...]
    """Methods of the table to start from."""
    by_rule: bool
    """Whether the rule itself names `methods`; otherwise they are the nearest of their kind."""
    budget: str
    """Share of the backbone to start from."""


def advise(n_examples: int, known: Collection[str], usable: Collection[str]) -> Advice:
    """Apply the rule of thumb.

    Args:
        n_examples: Number of training examples.
        known: Names of all methods.
        usable: Names of the methods that can act on the model.

    Raises:
        ConfigError: The number is below 1 or above `MOST_EXAMPLES`.
    """
    if not 1 <= n_examples <= MOST_EXAMPLES:
        raise ConfigError(f"--examples must be from 1 to {MOST_EXAMPLES:,}, got {n_examples:,}")
    rules = tuple(rule for rule in RULES if rule.least <= n_examples <= rule.most) or RULES[:1]
    advised = tuple(dict.fromkeys(a for rule in rules for a in rule.advised))
    own = tuple(next((m for m in a.methods if m in known), None) for a in advised)
    methods = tuple(m for m in own if m is not None and m in usable)
    return Advice(
        rules=rules,
        untrained=tuple(a.name for a in advised if not a.methods),
        missing=tuple(a.name for a, method in zip(advised, own, strict=True) if a.methods and method is None),
        unusable=tuple(m for m in own if m is not None and m not in usable),
        methods=methods or tuple(m for a in advised for m in a.nearest if m in usable),
        by_rule=bool(methods),
        budget=rules[-1].budget,
    )


def command_to_test(advice: Advice, n_examples: int, model: str | None) -> str:
    """The command that tests the advice against the alternatives on the user's own files.

    Every run also trains LoRA, adapter, BitFit and prefix alone at the same budget, and confirms all of them with
    several seeds.
    """
    words = ["peftsearch", "run", "--budget", advice.budget, *(["--model", model] if model else [])]
    words += ["--train", "train.csv", "--validation", "validation.csv"]
    words += ["--max-train", str(n_examples), "--confirm-baselines", "6"]
    return shlex.join(words)
