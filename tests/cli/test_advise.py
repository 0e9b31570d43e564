"""`peftsearch advise`: the rule of thumb, and a command that tests it."""

import json
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.cli.advise import _lines
from peftsearch.design.advice import MOST_EXAMPLES, RULES, advise, command_to_test
from peftsearch.methods import METHODS
from peftsearch.searcher.prepare import prepare
from tests.runs import call, options_of, refused
from tests.tiny import FAMILIES

TENS, HUNDREDS, MORE = RULES


@pytest.mark.parametrize(
    ("n_examples", "rules"),
    [
        (1, (TENS,)),
        (10, (TENS,)),
        (99, (TENS,)),
        (100, (TENS, HUNDREDS)),
        (999, (TENS, HUNDREDS)),
        (1000, (HUNDREDS,)),
        (9999, (HUNDREDS,)),
        (10_000, (MORE,)),
        (MOST_EXAMPLES, (MORE,)),
    ],
)
def test_the_ranges_are_what_the_words_say(n_examples, rules):
    assert advise(n_examples, METHODS, METHODS).rules == rules


def test_methods_that_there_are_not_are_named_as_such():
    advice = advise(500, ("lora", "prefix", "bitfit"), ("lora", "prefix", "bitfit"))
    assert (advice.untrained, advice.missing) == (("prompting",), ("IA3", "prompt tuning"))
    assert (advice.methods, advice.by_rule) == (("bitfit", "prefix"), False)


def test_methods_that_there_are_come_by_the_rule():
    advice = advise(500, ("lora", "prompt", "bitfit"), ("lora", "prompt", "bitfit"))
    assert (advice.missing, advice.methods, advice.by_rule) == (("IA3",), ("prompt",), True)


def test_methods_that_cannot_act_on_the_model():
    advice = advise(20_000, ("lora", "adapter"), ("lora",))
    assert (advice.unusable, advice.methods) == (("adapter",), ("lora",))
    advice = advise(500, ("lora", "ia3", "bitfit"), ("lora",))
    assert (advice.unusable, advice.methods, advice.by_rule) == (("ia3",), (), False)
    assert "None of the rule's methods can act here; let the search choose, at 0.1%." in _lines(advice, 500, "", "")


@given(st.integers(1, MOST_EXAMPLES))
@settings(max_examples=8)
def test_the_command_parses(n_examples):
    advice = advise(n_examples, METHODS, METHODS)
    program, *words = shlex.split(command_to_test(advice, n_examples, "./my model"))
    parsed = options_of(words)
    assert (program, words[0], parsed.task.max_train) == ("peftsearch", "run", n_examples)
    assert (parsed.budget, parsed.model.name) == (advice.budget, "./my model")


@pytest.mark.parametrize("n_examples", [80, 800])
def test_the_command_is_one_that_run_takes(place, monkeypatch, capsys, n_examples):
    """From the folder of the files it names, up to the first training."""
    folder, model, _ = place
    monkeypatch.chdir(folder)
    assert call("advise", "--examples", n_examples, "--model", model, "--json") == 0
    command = json.loads(capsys.readouterr().out)["command"]
    setup = prepare(options_of(shlex.split(command)[1:]))
    assert len(setup.suite.tasks[0].train) == min(n_examples, 96)
    assert setup.strategy.confirm.baselines == 6


def test_a_model_gives_the_budget_in_parameters(tmp_path, capsys):
    FAMILIES["llama"]().config.save_pretrained(tmp_path)
    assert call("advise", "--examples", 50, "--model", tmp_path) == 0
    out = capsys.readouterr().out
    assert "Start from ia3, at 384 (384 of" in out, "the least that four blocks of 96 scales each allow"
    assert f"--model {tmp_path}" in out


def test_what_it_says(capsys):
    assert call("advise", "--examples", 5) == 0
    few = capsys.readouterr().out
    assert call("advise", "--examples", 50_000, "--json") == 0
    many = json.loads(capsys.readouterr().out)
    assert "rule of thumb" in few
    assert "does not cover fewer than tens" in few
    assert many["rule_of_thumb"] is True
    assert many["methods"] == ["lora", "adapter"]
    assert many["budget"] == "0.5%"
    assert "2303.15647" in many["source"]


@pytest.mark.parametrize("n_examples", [0, -3, 10**13])
def test_absurd_numbers(capsys, n_examples):
    assert "--examples must be from 1 to" in refused(capsys, "advise", f"--examples={n_examples}")


def test_a_model_without_config(capsys, tmp_path):
    assert "no config.json" in refused(capsys, "advise", "--examples", "50", "--model", tmp_path)
