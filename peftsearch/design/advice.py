"""Which methods and what budget to start from, by the number of examples: a rule of thumb, and how to test it.

The rule is that of the project's notes on methods (methods.md, "Which method for how much data"): "Tens to hundreds of
examples: prompting, IA3. Hundreds to thousands: prompt tuning, IA3. More: LoRA, adapters." It comes without a
measurement. Its words overlap, and so do the ranges here: tens are 10 to 99, hundreds 100 to 999, thousands 1,000 to
9,999. The budgets are shares that the survey arXiv 2303.15647 tabulates for these methods.
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
"""Above this a number is a slip of the keyboard."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advised:
    """One method of the rule."""

    name: str
    """As the rule has it: `prompt tuning`."""
    methods: tuple[str, ...]
    """Its names in the table of methods, first choice first; empty where nothing is trained."""
    nearest: tuple[str, ...] = ()
    """What is of its kind, where the table has it not: a judgement, and no part of the rule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One sentence of the rule of thumb."""

    words: str
    least: int
    """Fewest examples that it speaks of."""
    most: float
    """Most examples."""
    advised: tuple[Advised, ...]
    budget: str
    """A share to start from."""


_IA3 = Advised(name="IA3", methods=("ia3",), nearest=("bitfit",))  # both train a vector beside a map
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
"""The rule; 0.1% is the survey's share of prompt tuning and the least of adapters, 0.5% the most of LoRA."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What the rule of thumb says for a number of examples."""

    rules: tuple[Rule, ...]
    """The sentences that speak of this number; the first for fewer than tens."""
    untrained: tuple[str, ...]
    """Advised and nothing to train."""
    missing: tuple[str, ...]
    """Advised and not in the table of methods."""
    unusable: tuple[str, ...]
    """Advised methods of the table that cannot act on the model."""
    methods: tuple[str, ...]
    """Methods of the table to start from."""
    by_rule: bool
    """Whether these are the rule's own; otherwise they are the nearest of their kind."""
    budget: str
    """A share to start from."""


def advise(n_examples: int, known: Collection[str], usable: Collection[str]) -> Advice:
    """Apply the rule of thumb.

    Args:
        n_examples: Training examples.
        known: Methods that there are.
        usable: Those among them that can act on the model.

    Raises:
        ConfigError: The number is below 1 or absurd.
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
    """The command that holds the advice against the alternatives on the user's own files.

    Every run trains LoRA, adapter, BitFit and prefix alone at the same budget beside what it finds; all of them are
    confirmed with several seeds.
    """
    words = ["peftsearch", "run", "--budget", advice.budget, *(["--model", model] if model else [])]
    words += ["--train", "train.csv", "--validation", "validation.csv"]
    words += ["--max-train", str(n_examples), "--confirm-baselines", "6"]
    return shlex.join(words)
