"""Parse budgets: the number of trainable parameters that a search may spend, excluding the task head."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from peftsearch.errors import BudgetError, one_line

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_FORMS = "write a share of the backbone such as 0.1%, or a count such as 22_700, 22.7k or 1M"
_LONGEST = 40
"""Most characters of a text that is read as a budget."""
_NUMBER = re.compile(r"([+-]?\d[\d_]*(?:\.\d+)?|[+-]?\.\d+)\s*([%a-z]*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """A budget on one backbone."""

    text: str
    """The user's text: `0.1%`."""
    n_params: int
    """Trainable parameters that the budget allows, rounded down."""
    n_backbone: int
    """Parameters of the backbone, which shares refer to."""

    @property
    def percent(self) -> float:
        """The budget as a percentage of the backbone."""
        return 100 * self.n_params / self.n_backbone


def check_budget(text: str, option: str = "--budget") -> None:
    """Check the form of a budget, before a model is loaded.

    Raises:
        BudgetError: The text is missing, is not a budget, or is not above zero.
    """
    _read(text, option)


def parse_budget(text: str, n_backbone: int) -> Budget:
    """Read a budget: `0.1%`, `22_700`, `22.7k`, `1M`.

    Args:
        text: The user's text.
        n_backbone: Parameters of the backbone, excluding the head.

    Raises:
        BudgetError: The text is not a budget, or the budget is not above zero or exceeds the backbone.
    """
    given = one_line(text, 60)
    number, unit = _read(text)
    n_params = int(number * n_backbone / 100) if unit == "%" else int(number * _UNITS[unit])
    if n_params > n_backbone:
        raise BudgetError(
            f"--budget {given!r} is {n_params:,} parameters, more than the backbone's {n_backbone:,}; "
            "a budget is at most 100%"
        )
    if n_params < 1:
        hint = f"; for a share write {number}%" if unit == "" else ""
        raise BudgetError(f"--budget {given!r} is less than one parameter of the backbone's {n_backbone:,}{hint}")
    return Budget(text=text.strip(), n_params=n_params, n_backbone=n_backbone)


def _read(text: str, option: str = "--budget") -> tuple[Decimal, str]:
    """The number of a budget and its unit, in lower case."""
    given = one_line(text, 60)
    match = _NUMBER.fullmatch(text.strip())
    if match is None or len(text) > _LONGEST:
        raise BudgetError(f"{option} {given!r} is not a budget: {_FORMS}")
    number, unit = Decimal(match[1].replace("_", "")), match[2].lower()
    if unit == "x":
        share = (number * 100).normalize()
        raise BudgetError(f"{option} {given!r}: a factor is not a budget; did you mean {share:f}%? ({_FORMS})")
    if unit != "%" and unit not in _UNITS:
        raise BudgetError(f"{option} {given!r}: unknown unit {match[2]!r}; {_FORMS}")
    if number <= 0:
        raise BudgetError(f"{option} {given!r} must be above zero; {_FORMS}")
    if unit == "%" and number > 100:
        raise BudgetError(f"{option} {given!r} is more than the backbone has; a budget is at most 100%")
    return number, unit
