"""Made-up files and command lines: a result, or one line and exit code 2; no traceback, and nothing written on 2."""

import contextlib
import io
import json
import string

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from peftsearch.cli.main import main
from peftsearch.design.space import load_space
from peftsearch.errors import PeftSearchError
from peftsearch.samplers.strategy import load_strategy
from peftsearch.study.best import read_best
from tests.found import best_of
from tests.tasks import resolve_task
from tests.tiny import FAMILIES

pytestmark = pytest.mark.slow
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
CELLS = st.one_of(
    st.text(max_size=12), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers(), max_size=2),
    st.lists(st.sampled_from(["O", "B-a", "I-a", "", 0, 1, None]), max_size=3),
)  # fmt: skip
NAMES = st.sampled_from([
    "text", "label", "labels", "sentence", "messages", "prompt", "completion", "input_ids", "tokens", "ner_tags", "a",
    "",
])  # fmt: skip
ROWS = st.lists(st.dictionaries(NAMES, CELLS, max_size=4), max_size=12)
KINDS = [None, "classification", "regression", "generation", "tagging", "multi_label"]
WORDS = st.lists(st.one_of(st.sampled_from(["fly", "to", "Rome", "\u200b", " "]), st.text(max_size=3)), max_size=4)
TAGS = st.lists(st.sampled_from(["O", "B-a", "I-a", "", None, 1, True]), max_size=4)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def is_clean(read):
    """Whether something is read, or a fault of the user's is told in one line; any other fault is raised."""
    told = "read"
    try:
        read()
    except PeftSearchError as error:
        told = str(error)
    return told != "" and "\n" not in told


@FUZZ
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet"]))
@example(content=b"\xff\xfet\x00e\x00x\x00t\x00", suffix=".csv")
@example(content=b"PAR1PAR1", suffix=".parquet")
@example(content=b",", suffix=".csv")
def test_bytes_as_data(content, suffix, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / f"train{suffix}"
    path.write_bytes(content)
    assert is_clean(lambda: resolve_task(train=path))


@FUZZ
@given(rows=ROWS, drop=st.booleans(), kind=st.sampled_from(KINDS))
def test_odd_rows_as_data(rows, drop, kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert is_clean(lambda: resolve_task(train=path, bad_rows="drop" if drop else "error", kind=kind))


@FUZZ
@given(
    rows=st.lists(st.fixed_dictionaries({"tokens": WORDS, "tags": TAGS, "text": st.text(max_size=4)}), max_size=10),
    drop=st.booleans(),
    kind=st.sampled_from([None, "tagging", "multi_label"]),
)
def test_odd_words_and_tags(rows, drop, kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = {"label_column": "tags"} if kind == "multi_label" else {}
    assert is_clean(lambda: resolve_task(train=path, bad_rows="drop" if drop else "error", kind=kind, **more))


@FUZZ
@given(text=st.text(alphabet=string.printable, max_size=120))
def test_texts_as_tables(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "train.csv"
    path.write_text(f"text,label\n{text}", encoding="utf-8")
    assert is_clean(lambda: resolve_task(train=path, bad_rows="drop"))


@FUZZ
@given(tree=st.one_of(TREES, st.text(max_size=80)))
def test_yaml_as_spaces_strategies_and_results(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "mine.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree), encoding="utf-8")
    for read in (load_space, load_strategy, read_best):
        assert is_clean(lambda read=read: read(str(path)))


def places_of(tree, path=()):
    """The paths of all values in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places_of(value, (*path, key))


@pytest.fixture(scope="module")
def best():
    from peftsearch.backbone.detect import detect

    return json.loads(json.dumps(best_of(detect(FAMILIES["bert"]()), lora=1)))


@FUZZ
@given(data=st.data())
def test_a_result_with_one_other_value(data, best, tmp_path_factory):
    other = json.loads(json.dumps(best))
    *path, last = data.draw(st.sampled_from(list(places_of(best))))
    place = other
    for key in path:
        place = place[key]
    place[last] = data.draw(TREES)
    file = tmp_path_factory.mktemp("fuzz") / "best.yaml"
    file.write_text(yaml.safe_dump(other), encoding="utf-8")
    assert is_clean(lambda: read_best(file))


COMMANDS = "run train evaluate predict export show report runs compare list estimate advise pareto extend worker"
OPTIONS = (
    "--budget --model --task --train --space --strategy --steps --seeds --name --runs --output --format --json "
    "--resume --dry-run --help --version"
)
VALUES = "0.1% 5 -1 nan 1e400 / .. runs none lora s4 hybrid merged peft spaces methods"
WORDS = st.one_of(st.sampled_from(f"{COMMANDS} {OPTIONS} {VALUES}".split()), st.text(max_size=6))


@settings(FUZZ, max_examples=150)
@given(argv=st.lists(WORDS, min_size=1, max_size=6))
def test_command_lines(argv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        if argv[0] in ("run", "train", "pareto"):
            argv = [*argv, "--model", "no-such-model"]  # nothing is trained here
        code = main(argv)
    assert code in (0, 1, 2), (argv, code)
    assert "Traceback" not in out.getvalue() + err.getvalue()
    assert "defect of peftsearch" not in err.getvalue(), (argv, err.getvalue())
    if code == 2:
        assert not list(folder.iterdir()), argv
