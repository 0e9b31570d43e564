"""The verdict in words, and a drawing of the picked architecture: blocks by methods, parameters as area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import sqrt

from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.text import BlockKey
from peftsearch.report.next_steps import next_steps
from peftsearch.report.page import PALETTE, Drawing, Item, Section, Text
from peftsearch.study.best import Best
from peftsearch.study.record import Record
from peftsearch.study.trial_record import TrialRecord
from peftsearch.units import Scores, plural

_PER_BAND = 12
"""Number of blocks in one row of the drawing."""
_CELL, _ROW, _HEAD, _SIDE = 76, 80, 24, 74
"""Width and height of a placement's cell, height of the header, width of the names, all in pixels."""
_LARGEST = 44
"""Side of the largest square, in pixels."""


def winner(record: Record) -> Section:
    """Section with the run's conclusion or, for an unfinished run, the best trial so far."""
    if record.best is None:
        return Section(title="Not finished", items=_so_far(record))
    return Section(title="Result", items=_concluded(record, record.best))


def _so_far(record: Record) -> list[Item]:
    n_done = len(record.scored)
    items: list[Item] = [
        Text(
            text="This run is not finished: nothing is confirmed, and there is no verdict. The page shows the trials "
            "so far; rerun the command at its end to continue.",
            kind="lead",
        )
    ]
    if not n_done:
        return [*items, Text(text=f"{plural(len(record.search), 'trial')} so far, none with a score.")]
    best = max(record.scored, key=lambda t: (t.score or 0.0, -t.number))
    return [
        *items,
        Text(text=f"{plural(n_done, 'trial')} with a score so far. The best, by one short training, is {_said(best)}"),
    ]


def _said(trial: TrialRecord) -> str:
    n_params = trial.facts.n_params
    size = "" if n_params is None else f" with {n_params:,} parameters"
    return f"{trial.name} ({trial.detail}): {trial.score:.4f}{size}."


def _concluded(record: Record, best: Best) -> list[Item]:
    items: list[Item] = [Text(text=best.verdict.statement, kind="lead")]
    if best.verdict.settle:
        items.append(Text(text=best.verdict.settle))
    items.append(Text(text=f"Next: {'; '.join(next_steps(best, str(record.path)))}", kind="note"))
    if best.ended_early:
        items.append(Text(text=best.ended_early))
    if best.headroom:
        items.append(Text(text=best.headroom))
    architecture = Architecture.from_dict(best.architecture)
    items.append(Text(text=_pick_in_words(record, best, architecture)))
    if architecture.placements:
        items.append(drawing(architecture, best.blocks, best.labels))
    return items


def _pick_in_words(record: Record, best: Best, architecture: Architecture) -> str:
    budget = best.budget
    has_head = best.task.kind != "generation"
    line = next((t.detail for t in (*record.confirm, *record.search) if t.name == best.name), "")
    changed = "" if budget.changed is None else f" ({budget.changed:,} changed)"
    share = "" if budget.share_used is None else f"{budget.share_used:.1%} of the budget "
    text = (
        f"The pick is {best.name}{f' ({line})' if line else ''}: "
        f"{architecture.n_params:,} trainable parameters{changed}"
        f"{', excluding the task head' if has_head and not budget.count_head else ''}, {share}"
        f"({budget.text} = {budget.n_params:,}), trained for {best.steps:,} steps at a learning rate of "
        f"{best.learning_rate:g}."
    )
    for split, stored in (("Validation", best.scores.validation), ("Test", best.scores.test)):
        scores = Scores.from_dict(stored)
        if scores.values:
            spread = "" if scores.std is None else f" ± {scores.std:.4f} (standard deviation)"
            text += f" {split} {record.metric}: {scores.mean:.4f}{spread}, n = {plural(len(scores.values), 'seed')}."
    return text


def drawing(
    architecture: Architecture, blocks: Sequence[BlockKey], labels: Mapping[tuple[str, int, str], str]
) -> Drawing:
    """Draw an architecture as blocks by methods, each placement a square whose area is its parameters.

    Args:
        architecture: An architecture with at least one placement.
        blocks: All blocks of the backbone as (stack, index), input side first.
        labels: Readable size of each (stack, block, method); if one is missing, the plain size is shown.
    """
    methods = list(dict.fromkeys(p.method for p in architecture.placements))
    most = max(p.n_params for p in architecture.placements)
    cells = {
        (p.stack, p.block, p.method): _square(p, most, labels, PALETTE[methods.index(p.method) % len(PALETTE)])
        for p in architecture.placements
    }
    totals = {key: sum(p.n_params for p in architecture.placements if (p.stack, p.block) == key) for key in blocks}
    names = {key: str(key[1]) if len({s for s, _ in blocks}) == 1 else f"{key[0][:3]} {key[1]}" for key in blocks}
    wide = _wide(blocks, methods, cells, names, totals)
    tall = _tall(blocks, methods, cells, names, totals)
    return Drawing(
        svg=f'<div class="wide">{wide}</div><div class="tall">{tall}</div>',
        caption=f"The architecture of the pick, {architecture.n_params:,} trainable parameters. Each square is one "
        "method on one block of the backbone (block 0 is next to the input); its area shows the parameters that it "
        "trains. Below it is the method's size.",
    )


def _wide(
    blocks: Sequence[BlockKey],
    methods: Sequence[str],
    cells: Mapping[tuple[str, int, str], str],
    names: Mapping[BlockKey, str],
    totals: Mapping[BlockKey, int],
) -> str:
    """Drawing with blocks from left to right, in bands."""
    parts, y = [], 0
    for start in range(0, len(blocks), _PER_BAND):
        band = blocks[start : start + _PER_BAND]
        parts.append(_words(0, y + 15, "block", "start", "muted"))
        parts += [_words(_SIDE + (i + 0.5) * _CELL, y + 15, names[key]) for i, key in enumerate(band)]
        for row, method in enumerate(methods):
            top = y + _HEAD + row * _ROW
            parts.append(_words(0, top + _LARGEST / 2 + 5, method, "start"))
            parts += [_at(_SIDE + i * _CELL, top, cells.get((*key, method), _NOTHING)) for i, key in enumerate(band)]
        y += _HEAD + len(methods) * _ROW
        parts.append(_words(0, y + 10, "sum", "start", "muted"))
        parts += [
            _words(_SIDE + (i + 0.5) * _CELL, y + 10, f"{totals[key]:,}", "middle", "muted")
            for i, key in enumerate(band)
        ]
        y += 34
    return _svg(_SIDE + min(len(blocks), _PER_BAND) * _CELL, y, parts)


def _tall(
    blocks: Sequence[BlockKey],
    methods: Sequence[str],
    cells: Mapping[tuple[str, int, str], str],
    names: Mapping[BlockKey, str],
    totals: Mapping[BlockKey, int],
) -> str:
    """Drawing with blocks from top to bottom, for phones."""
    side = 50
    parts = [_words(0, 15, "block", "start", "muted")]
    parts += [_words(side + (i + 0.5) * _CELL, 15, method) for i, method in enumerate(methods)]
    for row, key in enumerate(blocks):
        top = _HEAD + row * _ROW
        parts.append(_words(0, top + _LARGEST / 2, names[key], "start"))
        parts.append(_words(0, top + _LARGEST / 2 + 16, f"{totals[key]:,}", "start", "muted"))
        parts += [_at(side + i * _CELL, top, cells.get((*key, m), _NOTHING)) for i, m in enumerate(methods)]
    return _svg(side + len(methods) * _CELL, _HEAD + len(blocks) * _ROW, parts)


_NOTHING = f'<circle cx="{_CELL / 2}" cy="{_LARGEST / 2}" r="1.5" fill="var(--muted)"/>'


def _square(p: Placement, most: int, labels: Mapping[tuple[str, int, str], str], colour: str) -> str:
    side = max(3.0, _LARGEST * sqrt(p.n_params / most))
    text = labels.get((p.stack, p.block, p.method), str(p.size))
    lines = text.split("+")
    shown = [f"{line}+" for line in lines[:-1]] + lines[-1:]
    if len(shown) > 2:
        shown = [shown[0], "…"]  # the whole text is in the tooltip
    below = "".join(_words(_CELL / 2, _LARGEST + 13 + 13 * i, line, size=11) for i, line in enumerate(shown))
    return (
        f"<title>{escape(f'{p.method} {text}: {p.n_params:,} parameters')}</title>"
        f'<rect x="{(_CELL - side) / 2:.1f}" y="{(_LARGEST - side) / 2:.1f}" width="{side:.1f}" height="{side:.1f}" '
        f'rx="2" fill="var({colour})"/>{below}'
    )


def _at(x: float, y: float, content: str) -> str:
    return f'<g transform="translate({x:g} {y:g})">{content}</g>'


def _words(x: float, y: float, text: str, anchor: str = "middle", colour: str = "ink", size: int = 13) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="var(--{colour})">'
        f"{escape(text)}</text>"
    )


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="Architecture: blocks by methods">{"".join(parts)}</svg>'
    )
