"""The order of rooms: who may import whom, over every import, lazy ones and those for type checkers included."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import peftsearch

ROOT = Path(peftsearch.__file__).parent
ORDER = (
    "errors", "units", "files", "fields", "catalog", "options", "tasks", "backbone", "methods", "design", "injection",
    "study",
    "samplers", "engine", "exporter", "trainer", "searcher", "report", "api", "cli",
)  # fmt: skip
"""From the ground up: a room imports from those before it alone."""
BESIDE = {"__init__", "__main__"}
"""Entries that stand above all rooms."""


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in ROOT.rglob("*.py")}


def room_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def imports(module):
    """Modules of the package that a module imports, wherever in the file."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            target = name if name in MODULES else name.rpartition(".")[0]
            if target in MODULES and target != module:
                yield target


def test_no_room_imports_from_above():
    floors = {room: floor for floor, room in enumerate(ORDER)}
    upward = [
        f"{module} imports {target}"
        for module in MODULES
        for target in imports(module)
        if floors.get(room_of(target), 0) > floors.get(room_of(module), len(ORDER))
    ]
    assert upward == []


def test_the_command_line_imports_nothing_heavy():
    code = (
        "import sys; from peftsearch.cli.main import main; main(['--help']); "
        "print([m for m in ('torch', 'transformers', 'optuna', 'pandas', 'yaml', 'pydantic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"


def test_facts_and_counts_of_methods_need_no_torch():
    code = (
        "import sys; from peftsearch.methods import METHODS; from tests.anatomies import bert_like; "
        "block = bert_like().blocks[0]; print(METHODS['lora'].count(block, 4)); "
        "print(all(method.count(block, 1) > 0 for method in METHODS.values() if method.obstacle(block) is None)); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    ).stdout
    assert out.split("\n") == [str(2 * 4 * (384 + 384)), "True", "[]", ""]


def test_public_names_load():
    for name in peftsearch.__all__:
        assert getattr(peftsearch, name) is not None


def test_every_package_is_in_the_wheel():
    tool = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    made = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert set(tool["packages"]) == made | set(tool["package-dir"])


def test_every_entry_of_the_package_is_a_room():
    entries = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert entries == {*ORDER, *BESIDE}


def test_no_circle_of_modules():
    graph = {module: set(imports(module)) for module in MODULES}
    in_order = TopologicalSorter(graph).static_order()  # raises CycleError, which names the circle
    assert set(in_order) == set(MODULES)


def test_a_test_is_found_by_the_name_of_its_module():
    """tests/ROOM/test_MODULE.py or test_MODULE_MORE.py; `contract` runs over a room, `whole` holds whole runs."""
    here = Path(__file__).parent
    lost = []
    for path in here.rglob("test_*.py"):
        folder = path.relative_to(here).parent
        known = {"contract", "rooms"} | {p.stem for p in (ROOT / folder).glob("*.py")} | {folder.name}
        name = path.stem.removeprefix("test_")
        if folder.parts[:1] != ("whole",) and not any(name == k or name.startswith(f"{k}_") for k in known if k):
            lost.append(str(path.relative_to(here)))
    assert lost == []
