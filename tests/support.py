"""Generate the table in docs/support.md: which method acts on which backbone family.

`python -m tests.support` rewrites the table. It asks each method for its obstacle on the anatomy of each family's tiny
model; no weights are created.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from peftsearch.methods import METHODS
from peftsearch.methods.support import find_obstacle
from tests.methods import equipped
from tests.tiny import FAMILIES, outline

PAGE = Path(__file__).parent.parent / "docs" / "support.md"
BEGIN, END = "<!-- support table -->", "<!-- end -->"
ALSO = {"llama": "SmolLM", "gpt_neox": "Pythia", "deberta-v2": "DeBERTa-v3", "t5": "Flan-T5"}
"""Well-known models that go by the name of another family."""


def support(method: str, family: str) -> str:
    """`yes`, or the reason why the method cannot act on the family."""
    obstacle = find_obstacle(method, equipped(outline(family)))
    # The path in front and the advice behind are of one model; in between stands what is true of the family.
    return "yes" if obstacle is None else re.sub(r"^\S*\.\S* ", "", obstacle).partition(";")[0]


def render() -> str:
    """The table in Markdown: a line a method."""
    names = ", ".join(f"{family} ({ALSO[family]})" if family in ALSO else family for family in FAMILIES)
    lines = [
        textwrap.fill(f"The {len(FAMILIES)} families under test, by transformers' names: {names}.", 120),
        "",
        "| method | acts on | does not act on, since the block |",
        "|---|---|---|",
        *map(_line, METHODS),
    ]
    return "\n".join(lines)


def _line(method: str) -> str:
    reasons: dict[str, list[str]] = {}
    for family in FAMILIES:
        reasons.setdefault(support(method, family), []).append(family)
    taken = reasons.pop("yes", [])
    acts = "all" if not reasons else f"{len(taken)} of {len(FAMILIES)}"
    return f"| {method} | {acts} | {'; '.join(_refused(reasons.items()))} |"


def _refused(reasons: Iterable[tuple[str, list[str]]]) -> list[str]:
    return [f"{reason}: {', '.join(families)}" for reason, families in reasons]


def replaced(text: str) -> str:
    """Put the table between the marks of a page.

    Raises:
        ValueError: The marks are not there, or not once.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest:
        raise ValueError(f"docs/support.md needs {BEGIN} and {END}, once each")
    return f"{before}{begin}\n{render()}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
