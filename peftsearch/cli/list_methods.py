"""`peftsearch list methods`: print each method with the shares of a model that it trains and changes."""

from __future__ import annotations

from typing import Any

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.demo import demo_backbone
from peftsearch.backbone.named import check_model
from peftsearch.cli.terminal import print_rows
from peftsearch.design.budget import Budget, check_budget, parse_budget
from peftsearch.design.shares import shares
from peftsearch.errors import MethodError
from peftsearch.exporter.formats import exports_of_method
from peftsearch.methods import METHODS
from peftsearch.options import TunedModelOptions

BUDGET = "0.1%"
"""Default budget to fit sizes to."""


def list_methods(model: TunedModelOptions, budget: str | None, as_json: bool) -> int:
    """Print the table of methods.

    Args:
        model: Model to fit the sizes to.
        budget: Budget to fit the sizes to; None for 0.1%.
        as_json: Whether to print JSON.

    Raises:
        PeftSearchError: The model's config or the budget cannot be read.
    """
    text = budget or BUDGET
    check_budget(text)
    backbone = _backbone(model)
    size = parse_budget(text, backbone.n_params)
    rows = [_row(name, backbone, size, as_json) for name in METHODS]
    print_rows(rows, as_json)
    if not as_json:
        print(
            f"On all {len(backbone.blocks)} blocks of {backbone.name} ({backbone.n_params:,} parameters), at most "
            f"{size.n_params:,} ({size.text}) trainable; * does not fit: shown at its smallest size."
        )
    return 0


def _backbone(model: TunedModelOptions) -> Backbone:
    """The model's anatomy; known for the embedded model without loading anything."""
    if model == TunedModelOptions():
        return demo_backbone()
    check_model(model)
    from peftsearch.backbone.outline import read_outline

    return read_outline(model).backbone


def _row(name: str, backbone: Backbone, budget: Budget, as_json: bool) -> dict[str, Any]:
    method = METHODS[name]
    facts = {"name": name, "paper (arXiv)": method.paper, "acts": method.places}
    exports = exports_of_method(name)
    more: dict[str, Any] = {"changes": method.changes}
    if as_json:
        more |= {"merges": "yes" if method.merges else "no", "exports": list(exports)}
    else:
        more |= {"exports to": ", ".join(exports) or "peftsearch"}
    return facts | (_numbers if as_json else _words)(name, backbone, budget) | more


def _numbers(name: str, backbone: Backbone, budget: Budget) -> dict[str, Any]:
    """Shares for JSON: 0.001 is 0.1%; null if the method cannot act on the backbone."""
    try:
        found = shares(name, backbone, budget)
    except MethodError as error:
        keys = ("fitted", "trained", "changed", "smallest", "largest", "fits")
        return {"size": METHODS[name].knob} | dict.fromkeys(keys, None) | {"obstacle": str(error)}
    return {
        "size": METHODS[name].knob,
        "fitted": found.label,
        "trained": found.trained,
        "changed": found.changed,
        "smallest": found.smallest,
        "largest": found.largest,
        "fits": found.fits,
        "obstacle": None,
    }


def _words(name: str, backbone: Backbone, budget: Budget) -> dict[str, Any]:
    try:
        found = shares(name, backbone, budget)
    except MethodError:
        return {"size": "cannot act here", "trained": "", "changed": "", "trained at any size": ""}
    return {
        "size": f"{METHODS[name].knob} {found.label}" + ("" if found.fits else " *"),
        "trained": _percent(found.trained),
        "changed": _percent(found.changed),
        "trained at any size": f"{_percent(found.smallest)} to {_percent(found.largest)}",
    }


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
