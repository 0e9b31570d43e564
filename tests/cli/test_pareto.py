"""`peftsearch pareto`: fronts of studies made by hand, a real sweep on a tiny model, and all that is refused."""

import json
import math
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from optuna.study._multi_objective import _is_pareto_front
from optuna.trial import TrialState

from peftsearch.report.pareto.front import analyse
from peftsearch.report.pareto.points import read_points
from peftsearch.report.pareto.text import conclusions
from tests.fronts import confirmations, save_study
from tests.runs import call, refused

BUDGETS = {"0.1%": 1000, "0.5%": 5000, "1%": 10_000}
PNG = b"\x89PNG\r\n\x1a\n"


def save_sweep(root, storage=""):
    """Three budgets: the score rises fast, then hardly; lora is dearer and worse."""
    scores = {"0.1%": 0.70, "0.5%": 0.85, "1%": 0.875}
    folders = []
    for budget, n in BUDGETS.items():
        search = [
            {"name": "head", "n_params": 0, "score": 0.5},
            {"name": "lora", "n_params": n - 10, "score": scores[budget] - 0.1},
            {"name": "trial 1", "n_params": n - 100, "score": scores[budget] - 0.05},
            {"name": "trial 2", "n_params": n - 5, "score": 0.99, "violations": ["memory"]},
            {"name": "trial 3", "n_params": n - 500, "score": 0.99, "interrupted": True},
            {"name": "trial 4", "n_params": n - 500, "score": 0.99, "state": TrialState.FAIL},
        ]
        confirm = [
            *confirmations("lora", n - 10, (scores[budget] - 0.05, scores[budget] - 0.025)),
            *confirmations("trial 1", n - 100, (scores[budget] - 0.025, scores[budget] + 0.025)),
        ]
        folders.append(save_study(root / f"s-{budget}", budget, n, search, confirm, storage=storage))
    return folders


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return save_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def multi(tmp_path_factory):
    """A study of three objectives, whose numbers repeat so that there are ties."""
    rng = np.random.default_rng(0)
    search = [
        {
            "name": f"trial {i}",
            "n_params": int(n),
            "score": float(s) / 10,
            "measures": {"params": int(n), "latency_s": float(t) / 1000},
        }
        for i, (n, s, t) in enumerate(rng.integers(1, 8, size=(30, 3)))
    ]
    for facts in search:
        facts["measures"] |= {"latency": facts["measures"]["latency_s"]}  # the value of the objective
    return save_study(
        tmp_path_factory.mktemp("multi") / "m", "1%", 10, search, objectives=("params", "score", "latency")
    )


def front_of(folders, *more):
    return analyse([read_points(folder) for folder in folders], *more)


@pytest.fixture(scope="module")
def told(sweep, tmp_path_factory):
    """The folder of a front, and what the command printed."""
    out = tmp_path_factory.mktemp("out")
    with redirect_stdout(StringIO()) as text:
        assert call("pareto", *sweep, "--out", out) == 0
    return out, text.getvalue()


@pytest.fixture
def runs(sweep, tmp_path):
    """Copies of the runs, to be damaged."""
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in sweep]


@pytest.fixture
def written(told):
    return told[0]


class TestFront:
    def test_conclusions_come_from_the_confirmed_designs(self, sweep):
        front = front_of(sweep)
        confirmed, search = front.levels
        assert [(p.budget, p.name) for p in confirmed.front] == [(b, "trial 1") for b in BUDGETS]
        assert confirmed.front[0].score == pytest.approx(0.70)
        assert confirmed.front[0].std == pytest.approx(0.05 / math.sqrt(2))
        assert [p.name for p in search.distinct_front] == ["head", "trial 1", "trial 1", "trial 1"]
        assert front.best.budget == "1%"
        assert confirmed.knee.budget == "0.5%"

    def test_the_smallest_budget_is_the_cheapest_within_one_standard_error(self, sweep):
        """0.5% is 0.025 below the best, whose error is over 2 seeds and 40 examples, two of which differ by half."""
        best, other = 0.875, 0.85
        d = np.repeat([0.5, 0.0], [2, 38])
        error = math.sqrt(0.05**2 / 2 / 2 + d.var(ddof=1) / 40)
        assert best - other <= error < best - 0.70
        assert front_of(sweep).smallest.budget == "0.5%"

    def test_where_the_head_alone_is_as_good_no_budget_is_needed(self, tmp_path):
        scores = {"0.1%": ((0.9, 0.95), (0.9, 0.94)), "1%": ((0.9, 0.95), (0.9, 0.95))}
        folders = [
            save_study(
                tmp_path / budget,
                budget,
                BUDGETS[budget],
                search=[{"name": "head", "n_params": 0, "score": 0.5}],
                confirm=[*confirmations("head", 0, head), *confirmations("trial 1", BUDGETS[budget], found)],
            )
            for budget, (head, found) in scores.items()
        ]
        front = front_of(folders)
        assert [p.name for p in front.levels[0].distinct_front] == ["head"]
        first = conclusions(front)[0]
        assert first.startswith("No budget is needed: head (baseline) at ")
        assert "is within one standard error of the best" in first
        assert {s.name for s in front.levels[0].series if s.hypervolume > 0} == {"all", "search"}

    def test_one_seed_has_no_standard_error(self, tmp_path):
        folders = [
            save_study(tmp_path / b, b, n, confirm=confirmations("trial 1", n, (0.5 + n / 1e5,)))
            for b, n in BUDGETS.items()
        ]
        front = front_of(folders)
        assert front.smallest is None
        assert "One seed has no standard error" in front.notes[0]

    def test_runs_in_one_storage(self, sweep, tmp_path):
        """The same as in folders of their own; several studies share the database by their prefix."""
        url = f"sqlite:///{tmp_path / 'all.db'}"
        folders = save_sweep(tmp_path / "shared", url)
        front = analyse([read_points(folder, url) for folder in folders])
        assert conclusions(front) == conclusions(front_of(sweep))

    def test_each_baseline_has_its_own_front_and_hypervolume(self, sweep):
        level = front_of(sweep).levels[0]
        series = {s.name: s for s in level.series}
        assert list(series) == ["all", "search", "lora"]
        assert [p.budget for p in series["lora"].front] == list(BUDGETS)
        assert series["lora"].hypervolume < series["search"].hypervolume == series["all"].hypervolume

    def test_the_hypervolume_is_the_sum_of_the_stairs(self, sweep):
        level = front_of(sweep, "params", (0.5, 20_000.0)).levels[0]
        assert level.reference == (0.5, 20_000.0)
        xs = [math.log10(n) for n in (900, 4900, 9900, 20_000)]
        expected = sum((b - a) * (s - 0.5) for a, b, s in zip(xs, xs[1:], (0.70, 0.85, 0.875), strict=False))
        assert level.series[0].hypervolume == pytest.approx(expected)

    def test_of_several_objectives_agrees_with_optuna(self, multi):
        from peftsearch.report.pareto.front import all_objectives_front
        from tests.runs import study

        front = front_of([multi])
        best = {t.user_attrs["name"] for t in study(multi).best_trials}
        assert {p.name for p in all_objectives_front(front.points, front.objectives)} == best
        assert front.n_nondominated == len(best)
        assert front.smallest is None
        assert "No design is confirmed" in front.notes[0]

    def test_another_cost(self, multi):
        front = front_of([multi], "latency")
        points = [(-p.score, p.measures["latency_s"]) for p in front.levels[0].points]
        mask = _is_pareto_front(np.array(points), assume_unique_lexsorted=False)
        assert len(front.levels[0].front) == mask.sum()

    def test_designs_whose_cost_is_not_measured_are_left_out(self, tmp_path):
        def trial(name, **measures):
            return {"name": name, "n_params": 5, "score": 0.5, "measures": measures}

        one = [trial("lora", latency_s=0.1), trial("trial 1", latency_s=float("nan")), trial("trial 2")]
        two = [trial("lora", latency_s=0.2), trial("trial 1", latency_s=None)]
        folders = [save_study(tmp_path / b, b, BUDGETS[b], t) for b, t in (("0.1%", one), ("1%", two))]
        front = front_of(folders, "latency")
        assert [(p.name, p.measures["latency_s"]) for p in front.levels[0].points] == [("lora", 0.1), ("lora", 0.2)]
        assert "3 designs without a measured inference latency." in front.notes


class TestFiles:
    def test_the_csv_round_trips_and_its_front_is_the_oracles(self, sweep, written):
        table = pd.read_csv(written / "pareto.csv")
        points = [p for folder in sweep for p in read_points(folder).points]
        assert table["score"].tolist() == [p.score for p in points]
        assert table["params"].tolist() == [p.measures["params"] for p in points]
        assert table["name"].tolist() == [p.name for p in points]
        assert not table.loc[table["violations"].notna(), "on_front"].any()
        for confirmed in (True, False):
            level = table[(table["confirmed"] == confirmed) & table["violations"].isna()]
            costs = np.column_stack([-level["score"], level["params"]])
            assert level["on_front"].tolist() == _is_pareto_front(costs, assume_unique_lexsorted=False).tolist()

    def test_the_picture_is_a_png(self, written):
        image = (written / "pareto.png").read_bytes()
        assert image.startswith(PNG)
        assert image.endswith(b"IEND\xaeB`\x82")
        width, height = (int.from_bytes(image[i : i + 4], "big") for i in (16, 20))
        assert width > height > 500

    def test_the_page_holds_charts_and_designs(self, written):
        page = (written / "pareto.html").read_text()
        assert page.count('class="chart"') == 2
        assert "Smallest budget within one standard error of the best: 0.5%" in page
        assert "<b>trial 1</b> at 0.5%" in page.replace("\\u003c", "<")

    def test_the_terminal(self, told):
        _, out = told
        for part in ("trial 1", "0.8500 ± 0.0354 (n=2)", "98.0%", "knee", "Hypervolume (accuracy x decades", "0.5%"):
            assert part in out

    def test_json(self, sweep, tmp_path, capsys):
        assert call("pareto", *sweep, "--out", tmp_path, "--json") == 0
        data = json.loads(capsys.readouterr().out)
        assert data["smallest_within_one_standard_error"]["budget"] == "0.5%"
        assert data["levels"][0]["knee"]["budget"] == "0.5%"
        assert [p["budget"] for p in data["levels"][0]["front"]] == list(BUDGETS)
        assert len(data["points"]) == 3 * (4 + 2)

    def test_go_beside_the_runs_and_are_no_run_themselves(self, runs):
        out = runs[0].parent / "s-pareto"
        out.mkdir()
        (out / "pareto.csv").write_text("of a front before")
        assert call("pareto", *sorted(runs[0].parent.glob("s-*"))) == 0
        assert {p.name for p in out.iterdir()} == {"pareto.csv", "pareto.png", "pareto.html"}

    def test_of_one_study_go_into_it(self, multi, capsys):
        assert call("pareto", multi) == 0
        assert "non-dominated in all 3 objectives (params, score, latency)" in capsys.readouterr().out
        table = pd.read_csv(multi / "pareto.csv")
        assert table["nondominated"].sum() > 0

    def test_without_the_extra_there_is_the_csv(self, sweep, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        monkeypatch.setattr("peftsearch.report.page.find_spec", lambda name: None)
        assert call("pareto", *sweep, "--out", tmp_path) == 0
        assert [p.name for p in tmp_path.iterdir()] == ["pareto.csv"]
        out = capsys.readouterr().out
        assert "pareto.png is left out" in out
        assert out.count('pip install "peftsearch[report]"') == 2


class TestUnevenRuns:
    def test_designs_with_fewer_seeds_are_not_the_knee_and_are_told(self, tmp_path):
        """A killed confirmation leaves a lucky single training; it is no conclusion."""
        low = save_study(
            tmp_path / "low", "0.1%", 1000, [{"name": "lora", "n_params": 900, "score": 0.6}],
            [*confirmations("lora", 300, (0.60, 0.61)), *confirmations("trial 1", 900, (0.70, 0.72)),
             *confirmations("trial 2", 500, (0.95,))],
        )  # fmt: skip
        high = save_study(
            tmp_path / "high", "1%", 10_000, [{"name": "lora", "n_params": 900, "score": 0.6}],
            [*confirmations("trial 1", 9000, (0.75, 0.77))],
        )  # fmt: skip
        front = front_of([low, high])
        assert front.levels[0].knee.name == "trial 1"
        assert front.levels[0].knee.study == "low"
        assert "trial 2" in {p.name for p in front.levels[0].front}
        assert any("1 confirmed design has fewer seeds than the 2 of others" in note for note in front.notes)

    def test_one_run_shows_its_designs_against_a_cost_it_did_not_search(self, sweep):
        front = front_of(sweep[:1])
        assert {p.name for p in front.levels[0].points} == {"lora", "trial 1"}
        assert any("cheap designs are here only as far as" in note for note in front.notes)
        assert not any("cheap designs" in note for note in front_of(sweep).notes)

    def test_a_run_without_confirmations_is_told(self, sweep, tmp_path):
        new = save_study(tmp_path / "new", "5%", 50_000, [{"name": "trial 1", "n_params": 40_000, "score": 0.99}])
        front = front_of([*sweep, new])
        assert front.best.study != "new"
        assert any("new has no confirmed design: it is not part of the conclusions" in note for note in front.notes)
        assert not any("no confirmed design" in note for note in front_of(sweep).notes)


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("model", "other/model", "the model is other/model there and tiny/bert here"),
            ("task_fingerprint", "0" * 16, "the data of the task"),
            ("metric", "f1", "the metric is f1 there and accuracy here"),
            ("strategy", {"confirm": {"steps": 7}}, "number of steps of the confirmation is 7 there and 100 here"),
            (
                "strategy",
                {"search": {"steps": 7}, "confirm": {"steps": 100}},
                "number of steps of the search is 7 there and 50 here",
            ),
            ("training", {"batch_size": 64}, "the batch size is 64 there and 32 here"),
            ("training", {"batch_size": 32, "max_length": 8}, "the length of texts in tokens is 8 there and 128 here"),
            ("budget_params", 1000, "have the same budget"),
            ("objectives", ["score", "params"], "give it alone"),
        ],
    )
    def test_runs_that_do_not_belong_together(self, runs, capsys, key, value, message):
        path = runs[1] / "settings.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {key: value}))
        assert message in refused(capsys, "pareto", *runs)

    def test_nothing(self, capsys):
        assert "needs either folders of runs" in refused(capsys, "pareto")

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--budgets", "1%,2%"], "needs either folders of runs"),
            (["--x", "latncy"], "did you mean 'latency'"),
            (["--x", "latency"], "no usable trial of these runs has it measured (measured: params)"),
            (["--reference", "0.5"], "write a score and a cost"),
            (["--reference", "0.5,0"], "above zero"),
            (["--reference", "-0.5,0"], "above zero"),  # a score may be negative
            (["--trials", "9"], "--trials belongs to a sweep"),
            (["--name", "x"], "--name belongs to a sweep"),
        ],
    )
    def test_options(self, runs, capsys, more, message):
        assert message in refused(capsys, "pareto", *runs, *more)
        assert not (runs[0].parent / "s-pareto").exists()

    def test_folders_that_hold_no_study(self, runs, tmp_path, capsys):
        assert "is not the folder of a run" in refused(capsys, "pareto", *runs, tmp_path / "none")
        (runs[2] / "study.db").write_bytes(b"this is no database, but long enough to look like one" * 9)
        assert "storage cannot be used" in refused(capsys, "pareto", *runs)
        (runs[2] / "study.db").unlink()
        assert "holds no study.db" in refused(capsys, "pareto", *runs)
        assert not (runs[2] / "study.db").exists()

    def test_a_study_without_scores(self, runs, tmp_path, capsys):
        empty = save_study(tmp_path / "empty", "2%", 20_000)
        assert "the study has no trials yet" in refused(capsys, "pareto", *runs, empty)

    def test_a_storage_elsewhere(self, runs, capsys):
        path = runs[1] / "settings.yaml"
        held = yaml.safe_load(path.read_text()) | {"storage": "sqlite:////elsewhere/x.db"}
        path.write_text(yaml.safe_dump(held))
        assert "give --storage with the run's URL" in refused(capsys, "pareto", *runs)
        url = f"sqlite:///{runs[0] / 'study.db'}"
        assert "holds no study of this run" in refused(capsys, "pareto", *runs, "--storage", url)

    def test_a_file_in_the_way(self, runs, tmp_path, capsys):
        (tmp_path / "file").write_text("x")
        assert "is not a folder" in refused(capsys, "pareto", *runs, "--out", tmp_path / "file")
