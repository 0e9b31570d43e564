"""The course of a training as a CSV table and as a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from statistics import mean

from peftsearch.trainer.snapshot import Course

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b65c8f", "#dd8d00", "#59636e")
"""Colours that colour-blind readers can distinguish (Okabe and Ito, 2008)."""


def curve_csv(courses: Sequence[Course], metric: str) -> str:
    """Write one line per step: seed, step, training loss and, after an evaluation, the validation score."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("seed", "step", "loss", f"validation_{metric}"))
    for course in courses:
        for step, loss in enumerate(course.losses, 1):
            table.writerow((course.seed, step, loss, course.scores.get(step, "")))
    return out.getvalue()


def curve_png(courses: Sequence[Course], metric: str) -> bytes | None:
    """Plot the losses, smoothed over a fiftieth of the steps, and the validation scores; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(9.6, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for course, colour in zip(courses, COLOURS * (1 + len(courses) // len(COLOURS)), strict=False):
        label = f"seed {course.seed}"
        width = max(1, len(course.losses) // 50)
        smooth = [mean(course.losses[max(0, i - width) : i + 1]) for i in range(len(course.losses))]
        left.plot(range(1, len(smooth) + 1), smooth, color=colour, linewidth=1, label=label)
        right.plot(list(course.scores), list(course.scores.values()), "o-", color=colour, markersize=3, label=label)
    for panel, name in ((left, "training loss"), (right, f"validation {metric}")):
        panel.set_xlabel("step")
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
    right.legend(frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
