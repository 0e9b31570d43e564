"""`--deploy`: what is searched and compared can be deployed; one design of each kind decides it beforehand."""

import pytest

from peftsearch.design.baselines import uniform
from peftsearch.design.fitting import fit
from peftsearch.errors import PeftSearchError
from peftsearch.exporter.formats import exports_of
from peftsearch.searcher.prepare import prepare
from tests.runs import arguments, options_of

CASES = {
    "peft": {"lora": True, "lora+layernorm": True, "lora+bitfit": True, "lora+ia3": False, "bitfit": False},
    "merged": {"lora": True, "lora+ia3": True, "bitfit": True, "lora+prefix": False, "adapter": False},
}


@pytest.mark.parametrize("target", CASES)
def test_designs_and_baselines_are_those_that_deploy(place, tmp_path, target):
    _, model, files = place
    words = arguments(model, files, tmp_path, "--space", "hybrid", "--strategy", "race", "--deploy", target)
    setup = prepare(options_of(words))
    feasible = setup.context.feasible
    for mix, deploys in CASES[target].items():
        design = uniform(*mix.split("+"))
        assert feasible(design) is deploys, mix
        assert (target in exports_of(fit(design, setup.backbone, setup.budget))) is deploys, mix
    names = {b.name for b in setup.baselines}
    assert {"lora", "ia3"} <= names
    assert not {"adapter", "prefix", "s4-paper"} & names
    assert ("head" in names) is (target == "merged")


def test_a_space_that_never_deploys_is_refused(place, tmp_path):
    _, model, files = place
    space = tmp_path / "own.yaml"
    space.write_text(
        "groups: 1\ngroupings: [uniform]\nallocations: [uniform]\ntunable_groups: all\nmethods: [adapter, prefix]\n"
    )
    words = arguments(model, files, tmp_path, "--space", str(space), "--strategy", "random", "--deploy", "merged")
    with pytest.raises(PeftSearchError, match="no method of space own can be"):
        prepare(options_of(words))
