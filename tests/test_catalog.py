import pytest
import yaml

from peftsearch.catalog import load_entry, shipped
from peftsearch.design.space import load_space
from peftsearch.errors import ConfigError
from peftsearch.files import parse_yaml, read_yaml
from peftsearch.samplers.strategy import load_strategy

BOMB = b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (BOMB, "anchors and aliases"),
        (b"a: [", "not valid YAML"),
        (b"[" * 60_000, "not valid YAML"),
        (b"- 1\n- 2\n", "expected a mapping"),
        (b"", "expected a mapping"),
        (b"1: 2\n", "expected a mapping of names"),
        (b"a: \xff\xfe", "not UTF-8"),
        (b"a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        (b"x: " + b"y" * 70_000, "at most 65,536"),
    ],
)
def test_hostile_yaml(raw, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_yaml(raw, "a.yaml")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_every_shipped_entry_loads_and_describes_itself():
    assert {"s4", "s4-plus", "autopeft", "uniform", "lora"} <= set(shipped("search_spaces"))
    assert {"s4", "random", "tpe"} <= set(shipped("strategies"))
    for name in shipped("search_spaces"):
        assert load_space(name).description
    for name in shipped("strategies"):
        assert load_strategy(name).description


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown space 's5'.*did you mean 's4'"):
        load_space("s5")
    with pytest.raises(ConfigError, match=r"unknown strategy 'randm'.*did you mean 'random'"):
        load_strategy("randm")


def test_a_users_own_yaml_and_object(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"allocations": ["uniform"], "methods": ["lora"], "groups": 1}))
    assert load_space(str(path)).name == "mine"
    assert load_entry("search_spaces", "space", "peftsearch.design.grouping:GROUPINGS")[1]
    with pytest.raises(ConfigError, match="cannot be imported"):
        load_space("no.such.module:Thing")
    with pytest.raises(ConfigError, match="the object lacks dimensions"):
        load_space("peftsearch.design.grouping:GROUPINGS")
    with pytest.raises(ConfigError, match="expected a peftsearch Strategy"):
        load_strategy("peftsearch.design.grouping:GROUPINGS")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sampler": {"name": "s4"}, "trails": 3}, "unknown key 'trails', did you mean 'trials'"),
        ({"sampler": {"settings": 1}}, "'sampler' needs a 'name'"),
        ({}, "'sampler' is missing"),
        ({"sampler": {"name": "s4"}, "trials": "many"}, "'trials' must be int, got 'many'"),
        ({"sampler": {"name": "s4"}, "trials": True}, "'trials' must be int"),
        ({"sampler": {"name": "s4"}, "pruner": {"name": "axe"}}, "must be one of none, median"),
        ({"sampler": {"name": "s4"}, "fidelities": {"search": {"evaluations": 0}}}, "must be above 0"),
        ({"sampler": {"name": "s4"}, "fidelities": {"search": {"rungs": [0.5, 0.1]}}}, "must be ascending shares"),
        ({"sampler": {"name": "s4"}, "fidelities": {"search": {"rates": [1, 2]}}}, "must not hold 1"),
        ({"sampler": {"name": "s4"}, "fidelities": {"confirm": {"looks": [5, 5]}}}, "holds a value twice"),
        ({"sampler": {"name": "s4"}, "fidelities": {"serch": {}}}, "did you mean 'search'"),
        ({"sampler": {"name": "s4"}, "fidelities": {1: {}}}, "unknown key '1'"),
    ],
)
def test_strategies_report_their_faults(tmp_path, data, message):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        load_strategy(str(path))


def test_all_faults_of_a_space_at_once(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({"groups": "four", "groupings": ["spiral"], "colour": 1}))
    with pytest.raises(ConfigError) as caught:
        load_space(str(path))
    for part in ("'groups' must be int", "got 'spiral'", "unknown key 'colour'", "'methods' is missing"):
        assert part in str(caught.value)
