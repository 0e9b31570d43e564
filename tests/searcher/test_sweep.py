"""`peftsearch pareto --budgets`: one study a budget, on one loaded backbone, and their front."""

import pandas as pd
import pytest

from peftsearch.errors import AllTrialsFailed
from tests.fronts import save_study
from tests.runs import QUICK, call, refused, story

pytestmark = pytest.mark.slow


def sweep_arguments(place, runs, budgets, *more):
    _, model, (train, validation) = place
    return [
        "pareto", "--budgets", budgets, "--model", model, "--train", train, "--validation", validation,
        "--strategy", QUICK, "--trials", "2", "--steps", "2", "--search-steps", "1", "--seeds", "2",
        "--batch-size", "16", "--runs", runs, "--name", "n", "--device", "cpu", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def swept(place, tmp_path_factory):
    """A sweep of two budgets on a tiny model."""
    runs = tmp_path_factory.mktemp("swept")
    assert call(*sweep_arguments(place, runs, "10%,30%")) == 0
    return runs


def test_each_budget_has_a_study_and_the_front_a_folder(swept):
    assert {p.name for p in swept.iterdir()} == {"n-10pct", "n-30pct", "n-pareto"}
    table = pd.read_csv(swept / "n-pareto" / "pareto.csv")
    assert table["budget"].unique().tolist() == ["10%", "30%"]
    assert (table["params"] <= table["budget_params"]).all()
    assert {"lora", "adapter", "bitfit", "prefix", "head"} <= set(table["name"])
    assert set(table.loc[table["confirmed"], "n"]) == {2}


def test_a_shared_backbone_gives_the_same_as_a_run_of_its_own(place, swept, tmp_path):
    """The second study of the sweep against the same study alone, which loads everything itself."""
    own = [a for a in sweep_arguments(place, tmp_path, "30%") if a != "--budgets"]
    own[:2] = ["run", "--budget", "30%"]
    own[own.index("--name") + 1] = "n-30pct"
    assert call(*own) == 0
    for which in ("search", "confirm"):
        assert story(tmp_path / "n-30pct", which) == story(swept / "n-30pct", which)


def test_the_same_again_trains_nothing(place, swept, capsys):
    before = {b: story(swept / f"n-{b}pct") for b in ("10", "30")}
    assert call(*sweep_arguments(place, swept, "10%,30%")) == 0
    out = capsys.readouterr().out
    assert "-- search" not in out
    assert "┃ changed" in out or "┃  changed" in out, "beside what is trained"
    assert {b: story(swept / f"n-{b}pct") for b in before} == before


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ("10%", "is one budget; a front needs at least two"),
        ("10%,,20%", "has an empty entry"),
        ("10%,lots", "'lots' is not a budget"),
        ("20%,10%", "10% comes after 20%, which is larger; write --budgets 10%,20%"),
        ("10%,10%", "10% and 10% are the same budget"),
        ("4057,10%", "4057 and 10% are the same budget (4,057 parameters)"),
        ("10%,300%", "at most 100%"),
        ("3,5,10%", "2 of 3 cannot be used (3, 5): --budget 5 (5 parameters) holds no design of space hybrid"),
    ],
)
def test_bad_budgets(place, tmp_path, capsys, budgets, message):
    assert message in refused(capsys, *sweep_arguments(place, tmp_path / "runs", budgets))
    assert not (tmp_path / "runs").exists()


def test_several_objectives(place, tmp_path, capsys):
    line = refused(capsys, *sweep_arguments(place, tmp_path / "runs", "10%,20%", "--objective", "score,params"))
    assert "searches for the score alone" in line


def test_a_folder_of_other_settings_is_said_before_anything_is_trained(place, tmp_path, capsys):
    save_study(tmp_path / "n-30pct", "30%", 1)
    assert "was created with other settings" in refused(capsys, *sweep_arguments(place, tmp_path, "10%,30%"))
    assert not (tmp_path / "n-10pct").exists()


def test_a_budget_without_scores_does_not_end_the_sweep(place, tmp_path, capsys, monkeypatch):
    begun = []

    def fail(options, reporter, *, like):
        begun.append(options.study.name)
        raise AllTrialsFailed("all 8 trials failed: RuntimeError: out of memory")

    monkeypatch.setattr("peftsearch.searcher.sweep.run_study", fail)
    assert call(*sweep_arguments(place, tmp_path, "10%,20%,30%")) == 1
    assert begun == ["n-10pct", "n-20pct", "n-30pct"]
    assert "fewer than two budgets have scores; budget 10%: all 8 trials failed" in capsys.readouterr().err


def test_a_name_is_made_up_and_kept(place, tmp_path, monkeypatch):
    """Planned alone: what would be trained, and where."""
    from peftsearch.options import TaskOptions, TunedModelOptions
    from peftsearch.searcher.options import StudyOptions, SweepOptions
    from peftsearch.searcher.sweep import plan_sweep

    _, model, (train, validation) = place
    options = SweepOptions(
        model=TunedModelOptions(name=str(model)),
        task=TaskOptions(train=train, validation=validation),
        study=StudyOptions(runs=tmp_path),
    )
    plan = plan_sweep(options, ["10%", "+2_0%"])
    assert plan.out.name == f"{plan.options[0].study.name.removesuffix('-10pct')}-pareto"
    assert [o.study.name.rsplit("-", 1)[1] for o in plan.options] == ["10pct", "2_0pct"]
    assert [o.budget for o in plan.options] == ["10%", "+2_0%"]
