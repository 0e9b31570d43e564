"""`peftsearch list`: print the available spaces, strategies, methods, tasks or objectives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from peftsearch.catalog import shipped
from peftsearch.cli.terminal import print_rows
from peftsearch.errors import ConfigError
from peftsearch.options import HYPHEN, TunedModelOptions, changed_options, group


def list_catalog(
    what: Literal["spaces", "strategies", "methods", "tasks", "objectives"],
    /,
    *,
    model: Annotated[TunedModelOptions | None, group("Model, for `list methods` (default: embedded MiniLM-L6)")] = None,
    budget: Annotated[str | None, HYPHEN] = None,
    json: bool = False,
) -> int:
    """List the available spaces, strategies, methods, tasks or objectives.

    Args:
        what: The kind of thing to list.
        model: Model to fit the sizes of `list methods` to.
        budget: Budget to fit the sizes of `list methods` to (default: 0.1%).
        json: Print JSON.
    """
    model = model or TunedModelOptions()
    if what == "methods":
        from peftsearch.cli.list_methods import list_methods

        return list_methods(model, budget, json)
    refused = [*changed_options(model), *([] if budget is None else ["--budget"])]
    if refused:
        raise ConfigError(f"{refused[0]}: is for `peftsearch list methods`; leave it out")
    tables = {
        "spaces": _spaces,
        "strategies": _strategies,
        "tasks": _tasks,
        "objectives": _objectives,
    }
    print_rows(tables[what](), json)
    return 0


def _spaces() -> list[dict[str, Any]]:
    from peftsearch.design.space import load_space

    found = {name: load_space(name) for name in shipped("search_spaces")}
    return [{"name": name, "designs": s.n_designs, "what": getattr(s, "description", "")} for name, s in found.items()]


def _strategies() -> list[dict[str, Any]]:
    from peftsearch.samplers.strategy import load_strategy

    found = {name: load_strategy(name) for name in shipped("strategies")}
    return [
        {
            "name": name,
            "sampler": s.sampler,
            "pruner": s.pruner,
            "trials": s.trials,
            "rungs": ", ".join(f"{100 * share:g}%" for share in s.search.rungs),
            "seeds": f"{', '.join(map(str, s.confirm.looks))}",
            "what": s.description,
        }
        for name, s in found.items()
    ]


def _tasks() -> list[dict[str, Any]]:
    from peftsearch.tasks import EMBEDDED

    rows = [{"name": name, "what": grammar.description} for name, grammar in EMBEDDED.items()]
    rows.append({"name": "glue/sst2, ...", "what": "a data set of the hub with labels, tags, answers or chats"})
    rows.append({"name": "--train FILE", "what": "your own CSV, TSV, JSONL or Parquet file"})
    rows.append({"name": "--kind image --train FOLDER", "what": "your own images, FOLDER/CLASS/*.png"})
    return rows


def _objectives() -> list[dict[str, Any]]:
    from peftsearch.study.objectives import OBJECTIVES

    return [
        {"name": o.name, "better": o.direction.removesuffix("imize") + "imum", "unit": o.unit, "what": o.description}
        for o in OBJECTIVES.values()
    ]
