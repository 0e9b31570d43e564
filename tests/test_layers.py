"""Who may import whom, how light the command line is, and that every public name loads."""

import ast
import subprocess
import sys
from pathlib import Path

import peftsearch

ROOT = Path(peftsearch.__file__).parent
LAYERS = {
    0: {"errors", "fields", "architecture", "budget"},
    1: {
        "objectives",
        "space",
        "autopeft",
        "neighbours",
        "catalog",
        "grouping",
        "strategy",
        "methods",
        "backbone",
    },
    2: {
        "fitting",
        "feasibility",
        "knapsack",
        "injection",
        "reducing",
        "samplers",
        "pruners",
        "baselines",
        "display",
        "pareto",
        "references",
        "in_place",
    }
    | {"regularising", "advice", "shares", "memory", "claims", "storage", "study", "found"}
    | {"refitting", "output_folder", "shapes", "states", "merging"},
    3: {"tasks", "training", "priming", "evaluate", "measure", "sensitivity", "verdict", "checkpoint", "api", "export"}
    | {"generation"}
    | {"points", "axis", "front", "front_text", "report"},
    4: {
        "engines",
        "setup",
        "identity",
        "options",
        "search",
        "schedule",
        "finalists",
        "session",
        "result",
        "comparison",
        "outputs",
        "progress",
        "trial",
        "trainer",
    },
    5: {
        "cli",
        "commands",
        "sweep",
        "pareto_command",
        "estimate_command",
        "advise_command",
        "methods_command",
        "__init__",
        "__main__",
    },
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
TORCH = {
    "methods", "backbone", "injection", "tasks", "training", "evaluate", "measure", "sensitivity", "engines", "trial",
    "priming", "reducing", "regularising", "checkpoint", "api", "export", "refitting", "trainer", "generation",
    "in_place", "states", "merging",
}  # fmt: skip
"""Parts that may import torch; `backbone/anatomy.py` may not, since counting and fitting stand on it."""


def imports(path):
    """Imported modules of a file, relative ones excluded (the house does not use them)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_part_has_a_layer():
    parts = {part_of(p) for p in ROOT.rglob("*.py")}
    assert parts == set(LAYER_OF)


def test_no_part_imports_from_above():
    for path in ROOT.rglob("*.py"):
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "peftsearch" and len(parts) > 1:
                assert LAYER_OF[parts[1]] <= LAYER_OF[part_of(path)], f"{path.name} imports {module}"


def test_torch_stays_where_it_belongs():
    for path in ROOT.rglob("*.py"):
        if part_of(path) not in TORCH or path.name == "anatomy.py":
            assert not any(m.split(".")[0] in {"torch", "transformers"} for m in imports(path)), path


def test_the_command_line_imports_nothing_heavy():
    code = (
        "import sys; from peftsearch.cli import parser; parser().format_help(); "
        "print([m for m in ('torch', 'transformers', 'optuna', 'rich', 'pandas', 'yaml') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_public_names_load():
    for name in peftsearch.__all__:
        assert getattr(peftsearch, name) is not None
