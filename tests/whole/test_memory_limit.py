"""`run --max-memory`: what cannot fit is recorded with its reason and not trained."""

import re

import pytest

from peftsearch.backbone.load import load_backbone, n_head_params
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.design.memory import MemoryLimit
from peftsearch.engine.measure import stored_bytes
from tests.runs import call, refused, study


def limit_of(loaded, n_params):
    memory = MemoryLimit(limit=1, model_bytes=stored_bytes(loaded.model), n_head=n_head_params(loaded))
    return memory.certain(n_params)


@pytest.mark.slow
def test_designs_that_cannot_fit_are_not_trained(place, args, tmp_path, capsys):
    """Designs may spend shares of the budget; the limit leaves room for those of at most half of it."""
    loaded = load_backbone(str(place[1]), num_labels=2)
    budget = parse_budget("20%", loaded.backbone.n_params)
    room = budget.n_params // 2
    given = ("--max-memory", f"{limit_of(loaded, room)}B", "--objective", "score,params", "--strategy", "random")
    assert (
        call(
            *args(
                *given,
                "--trials",
                "1",
                "--steps",
                "2",
                "--search-steps",
                "1",
                "--seeds",
                "1",
                "--confirm-baselines",
                "1",
            )
        )
        == 0
    )
    assert f"leaves room for {room:,} of the budget's {budget.n_params:,} parameters" in capsys.readouterr().out
    trials = study(tmp_path / "runs" / "r").trials
    refusals = [t for t in trials if "cannot be trained" in t.user_attrs.get("reason", "")]
    for t in trials:
        if t in refusals or not t.user_attrs.get("infeasible"):  # the paper's design is too large for some shares
            n_params = fit(Design.from_dict(t.user_attrs["design"]), loaded.backbone, budget).n_params
            assert (n_params > room) == (t in refusals), t.user_attrs
    assert any(t.user_attrs["name"].startswith("lora") for t in refusals)
    reason = refusals[0].user_attrs["reason"]
    assert re.search(r"its [\d,]+ parameters cannot be trained: weights, gradients and optimizer states alone", reason)
    assert all(t.user_attrs["infeasible"] and "measures" not in t.user_attrs for t in refusals)


def test_a_limit_that_no_design_can_keep_is_refused_at_once(args, tmp_path, capsys):
    line = refused(capsys, *args("--max-memory", "100kB"))
    assert re.search(r"--max-memory 100 kB is too little for .* in any design of space s4: the smallest has", line)
    assert not (tmp_path / "runs").exists()
