"""Static chart of a front for papers and slides: one panel per fidelity, one colour and mark per baseline."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from peftsearch.design.design import UNTUNED
from peftsearch.errors import ReportError
from peftsearch.report.pareto.axis import Axis
from peftsearch.report.pareto.front import Front, Level, Series
from peftsearch.report.pareto.points import Point
from peftsearch.units import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEARCH_COLOUR = "#0072b2"
COLOURS = ("#dd8d00", "#009e73", "#b65c8f", "#d55e00", "#3f9fd6", "#8a8000", "#59636e")
"""Colours that colour-blind readers can distinguish (Okabe and Ito, 2008); the marks differ too."""
_MARKS = ("s", "^", "D", "v", "P", "X", "*")
_INK = "#1c2128"


def front_png(front: Front) -> bytes:
    """Draw a front as PNG.

    Raises:
        ReportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ReportError(
            'the picture needs matplotlib, which is not installed: pip install "peftsearch[report]"'
        ) from error
    n_panels = len(front.levels)
    figure = Figure(figsize=(6.4 * n_panels + 0.4, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    colours = baseline_colours(front)
    for panel, level in zip(panels, front.levels, strict=True):
        _draw(panel, front, level, colours)
    entries: dict[str, Any] = {}
    for panel in panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.suptitle(f"{_short(front.model)} on {_short(front.task)}: {front.metric} against {front.axis.label}")
    out = BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def baseline_colours(front: Front) -> dict[str, int]:
    """Index of each baseline in the colours and marks, the same in all panels and in the HTML page."""
    names = dict.fromkeys(p.baseline for p in front.points if p.baseline and p.baseline not in UNTUNED)
    return {name: i for i, name in enumerate(names)}


def level_title(level: Level) -> str:
    """Title of a level: `Confirmed: mean ± standard deviation over 4 seeds of 100 steps`."""
    steps = max(p.steps for p in level.points)
    if level.confirmed:
        n = max(len(p.scores) for p in level.points)
        return f"Confirmed: mean ± standard deviation over {plural(n, 'seed')} of {plural(steps, 'step')}"
    return f"Search: one seed of {plural(steps, 'step')}"


def _draw(panel: Axes, front: Front, level: Level, colours: dict[str, int]) -> None:
    axis = front.axis
    panel.set_title(level_title(level), fontsize=10, loc="left")
    panel.set_xlabel(axis.title)
    panel.set_ylabel(f"validation {front.metric}")
    if axis.log:
        panel.set_xscale("log")
    for series in level.series[1:]:
        _draw_series(panel, axis, level, series, colours)
    _stairs(panel, axis, level.front, color=_INK, linewidth=1.6, label="front of all designs", zorder=2)
    if level.knee is not None:
        _ring(panel, axis, level.knee, "o", 190, "knee")
    if level is front.levels[0] and front.smallest is not None and axis.holds(front.smallest):
        _ring(panel, axis, front.smallest, "s", 300, "smallest within one standard error")
    _format_ticks(panel, axis)
    for series in level.series:
        if series.name in UNTUNED and axis.log:
            _draw_head(panel, series.front[-1])
    panel.grid(alpha=0.3, linewidth=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _draw_series(panel: Axes, axis: Axis, level: Level, series: Series, colours: dict[str, int]) -> None:
    if series.name in UNTUNED and axis.log:
        return
    i = colours.get(series.name, 0)
    own = series.name == "search"
    colour = SEARCH_COLOUR if own else "#7a828c" if series.name in UNTUNED else COLOURS[i % len(COLOURS)]
    mark = "o" if own else _MARKS[i % len(_MARKS)]
    members = level.members(series.name, axis)
    if not members:
        return
    if level.confirmed:
        panel.errorbar(
            [axis.shown(p) for p in members],
            [p.score for p in members],
            yerr=[p.std or 0.0 for p in members],
            fmt=mark, color=colour, markersize=7, capsize=2.5, elinewidth=1, zorder=3, label=_called(series.name),
        )  # fmt: skip  # what is drawn, then how
    else:
        panel.scatter(
            [axis.shown(p) for p in members],
            [p.score for p in members],
            marker=mark, s=20 if own else 36, color=colour, alpha=0.35 if own else 0.9, linewidths=0,
            zorder=1 if own else 3, label=_called(series.name),
        )  # fmt: skip  # what is drawn, then how
    _stairs(panel, axis, series.front, color=colour, linewidth=1.1, alpha=0.8, linestyle="-" if own else "--", zorder=1)


def _draw_head(panel: Axes, point: Point) -> None:
    """Draw the score without any method as a line; below the picture, only as text, to keep the scale."""
    low, high = panel.get_ylim()
    panel.set_ylim(low, high)
    inside = low <= point.score <= high
    if inside:
        panel.axhline(point.score, color="#7a828c", linestyle=":", linewidth=1.4)
    panel.annotate(
        f"no method {point.score:.4f}" + ("" if inside else " (below the picture)"),
        xy=(0.99, point.score if inside else low), xycoords=("axes fraction", "data"),
        xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8, color="#59636e",
    )  # fmt: skip  # what is written, then where and how


def _called(name: str) -> str:
    return "designs of the search" if name == "search" else f"{name} alone" if name != "s4-paper" else name


def _stairs(panel: Axes, axis: Axis, points: Sequence[Point], **how: Any) -> None:
    points = [p for p in points if axis.holds(p)]
    if points:
        panel.step([axis.shown(p) for p in points], [p.score for p in points], where="post", **how)


def _ring(panel: Axes, axis: Axis, point: Point, mark: str, size: float, label: str) -> None:
    panel.scatter(
        [axis.shown(point)], [point.score], marker=mark, s=size, facecolors="none", edgecolors=_INK, linewidths=1.4,
        zorder=4, label=label,
    )  # fmt: skip  # what is drawn, then how


def _format_ticks(panel: Axes, axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if not axis.log:
        return
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 10 else f"{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _short(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
