"""`peftsearch run` with several objectives, with limits, and on several tasks."""

from dataclasses import replace

import optuna
import pytest
import torch
import yaml

from peftsearch.backbone.heads import make_heads, wearing
from peftsearch.backbone.load import load_backbone
from peftsearch.design.architecture import Architecture
from peftsearch.design.baselines import baselines_of
from peftsearch.design.budget import Budget
from peftsearch.design.fitting import fit
from peftsearch.design.space import load_space
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.settings import TrainingSettings
from peftsearch.study.hits import hits_of, packed_hits
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite
from peftsearch.tasks.task import Split, Task
from tests.runs import BRIEF, QUICK, arguments, call, refused, story, study

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SHORT = ("--trials", "5", "--seeds", "1", "--steps", "2", "--search-steps", "1")


def best_of(folder):
    return yaml.safe_load((folder / "best.yaml").read_text())


@pytest.mark.slow
class TestObjectives:
    @pytest.fixture(scope="class")
    @classmethod
    def front(cls, place, tmp_path_factory):
        _, model, files = place
        runs = tmp_path_factory.mktemp("front")
        argv = arguments(model, files, runs, "--objective", "params,score", "--strategy", "nsga2", *SHORT)
        assert call(*argv) == 0
        return runs / "r", argv

    def test_values_are_those_of_the_objectives(self, front):
        folder, _ = front
        search = study(folder)
        assert [d.name for d in search.directions] == ["MINIMIZE", "MAXIMIZE"]
        done = [t for t in search.trials if t.state.name == "COMPLETE"]
        assert all(t.values == [t.user_attrs["n_params"], t.user_attrs["score"]] for t in done)
        assert len({t.params["budget_share"] for t in done if "place" in t.user_attrs}) > 1

    def test_baselines_are_tried_at_every_share(self, front):
        folder, _ = front
        names = {t.user_attrs["baseline"]: t for t in study(folder).trials if "baseline" in t.user_attrs}
        assert {"lora 12.5%", "lora 25%", "lora 50%", "lora", "head"} <= set(names)
        assert {t.user_attrs["family"] for n, t in names.items() if n.split()[0] == "lora"} == {"lora"}
        budget = best_of(folder)["budget"]["n_params"]
        assert names["lora 25%"].user_attrs["n_params"] <= budget // 4

    def test_the_front_is_confirmed(self, front):
        folder, _ = front
        front_names = {t.user_attrs["name"] for t in study(folder).best_trials}
        confirmed = {t.user_attrs["name"] for t in study(folder, "confirm").trials}
        assert len(front_names & confirmed) >= min(6, len(front_names))

    def test_it_resumes_and_prints_its_front(self, front, capsys):
        folder, argv = front
        before = story(folder, "confirm")
        assert call(*argv) == 0
        assert "Pareto front: validation" in capsys.readouterr().out
        assert story(folder, "confirm") == before

    def test_pareto_and_report_read_it(self, front, capsys):
        folder, _ = front
        assert call("pareto", folder) == 0
        assert call("report", folder) == 0
        assert "non-dominated in all 2 objectives" in " ".join(capsys.readouterr().out.split())


class TestRefused:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--objective", "score,parms"], "did you mean 'params'"),
            (["--objective", "params"], "lacks the score"),
            (["--objective", "score,score"], "names 'score' twice"),
            (["--objective", "score,params"], "strategy s4 searches for one objective"),
            (["--max-memory", "8"], "the unit is missing"),
            (["--max-latency-overhead", "0.1"], "write a percentage"),
        ],
    )
    def test_objectives_and_limits(self, place, tmp_path, capsys, more, message):
        _, model, files = place
        assert message in refused(capsys, *arguments(model, files, tmp_path / "runs", *more))
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        ("tasks", "message"),
        [
            ("sentiment,sentiment", "'sentiment' is named twice"),
            ("sentiment,", "contains an empty name"),
            ("sentiment,entailmnt", "did you mean 'entailment'"),
        ],
    )
    def test_tasks(self, place, tmp_path, capsys, tasks, message):
        _, model, _ = place
        line = refused(capsys, "run", "--budget", "20%", "--model", model, "--task", tasks, "--runs", tmp_path / "runs")
        assert message in line
        assert not (tmp_path / "runs").exists()


class TestLimits:
    @pytest.fixture(scope="class")
    @classmethod
    def peaks(cls, place, tmp_path_factory):
        """Peak memory of the trials of a run without limits, ascending."""
        _, model, files = place
        runs = tmp_path_factory.mktemp("free")
        assert call(*arguments(model, files, runs, "--strategy", QUICK, *SHORT)) == 0
        return sorted(t.user_attrs["measures"]["peak_memory_bytes"] for t in study(runs / "r").trials)

    def test_what_exceeds_a_limit_is_recorded_and_not_confirmed(self, place, tmp_path, peaks):
        """The adapter's activations are wider than LoRA's: a limit between the two parts the designs."""
        _, model, files = place
        limit = (peaks[0] + peaks[-1]) // 2
        argv = arguments(model, files, tmp_path / "held", "--strategy", QUICK, "--max-memory", f"{limit:.0f}B", *SHORT)
        assert call(*argv) == 0
        trials = [t for t in study(tmp_path / "held" / "r").trials if t.state.name == "COMPLETE"]
        over = {t.user_attrs["name"] for t in trials if t.user_attrs["measures"]["peak_memory_bytes"] > limit}
        assert over == {t.user_attrs["name"] for t in trials if t.user_attrs.get("violations")} != set()
        assert not over & {t.user_attrs["name"] for t in study(tmp_path / "held" / "r", "confirm").trials}

    @pytest.mark.slow
    def test_no_design_keeps_the_limit(self, place, tmp_path, capsys, peaks):
        _, model, files = place
        limit = ("--max-memory", f"{peaks[0] - 1:.0f}B", *BRIEF, "--trials", "1")
        assert call(*arguments(model, files, tmp_path / "held", "--strategy", QUICK, *limit)) == 1
        assert "no design meets the limits; the closest: peak memory" in capsys.readouterr().err

    def test_a_limit_that_the_weights_alone_exceed(self, place, tmp_path, capsys):
        _, model, files = place
        line = refused(capsys, *arguments(model, files, tmp_path / "runs", "--max-memory", "1kB"))
        assert "--max-memory" in line
        assert not (tmp_path / "runs").exists()


def words(labels, n=24):
    texts = [f"w{i} film w{i % 7}" for i in range(n)]
    return Split(texts=texts, pairs=None, labels=[i % labels for i in range(n)])


def made_up(name, labels):
    split = words(labels)
    return Task(
        name=name, kind="classification", labels=tuple("abc"[:labels]), train=split, validation=split, test=split,
        metric="accuracy", source="made up",
    )  # fmt: skip


class TestTasks:
    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, place):
        return load_backbone(str(place[1]), num_labels=2)

    @pytest.fixture
    def engine_of(self, loaded):
        def make(*tasks):
            data = [encode(task, loaded.tokenizer, 16) for task in tasks]
            return LocalEngine(loaded, Suite(tasks=tasks), data, TrainingSettings(batch_size=8), CPU, None)

        return make

    @pytest.fixture
    def job(self, loaded):
        budget = Budget(text="x", n_params=4000, n_backbone=loaded.backbone.n_params)
        lora = next(b for b in baselines_of(load_space("s4"), loaded.backbone) if b.name == "lora")
        return Job(architecture=fit(lora.design, loaded.backbone, budget), learning_rate=1e-2, steps=4, keep_state=True)

    def test_each_task_trains_as_it_would_alone(self, engine_of, job):
        two, three = made_up("two", 2), made_up("three", 3)
        both, alone = engine_of(two, three).run(job), engine_of(two).run(job)
        assert both.task_scores[0] == alone.score
        assert both.states[0] == alone.states[0]
        assert both.score == pytest.approx(sum(both.task_scores) / 2)
        assert len(both.states) == 2

    def test_heads_have_the_width_of_their_tasks_and_the_models_own_comes_back(self, loaded):
        before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
        own, other = make_heads(loaded, [2, 3])
        assert own == {}
        with wearing(loaded.model, other):
            assert loaded.model(torch.ones(1, 3, dtype=torch.long)).logits.shape == (1, 3)
        after = loaded.model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], value) for name, value in before.items())

    def test_a_task_is_dropped_early_by_the_pruner(self, engine_of, job):
        heard = []

        def report(step, score):
            heard.append(step)
            raise optuna.TrialPruned("enough")

        engine = engine_of(made_up("two", 2), made_up("three", 3))
        with pytest.raises(optuna.TrialPruned):
            engine.run(job, report)
        assert heard == [4], "after the first task, before the second"
        assert engine.run(job).score > 0, "the backbone is free again"

    def test_test_scores_of_each_task(self, engine_of, job):
        engine = engine_of(made_up("two", 2), made_up("three", 3))
        outcome = engine.run(replace(job, test=True))
        assert tuple(test.score for test in outcome.tests) == outcome.task_scores, "test is validation here"

    @pytest.mark.slow
    def test_a_run_on_two_tasks(self, place, tmp_path, capsys):
        _, model, _ = place
        argv = ["run", "--budget", "20%", "--model", model, "--task", "sentiment,entailment", "--strategy", QUICK,
                "--trials", "2", "--steps", "2", "--search-steps", "2", "--seeds", "2", "--batch-size", "16",
                "--max-train", "40", "--runs", tmp_path, "--name", "r", "--device", "cpu"]  # fmt: skip
        assert call(*argv) == 0
        best = best_of(tmp_path / "r")
        assert [t["name"] for t in best["task"]["tasks"]] == ["sentiment", "entailment"]
        for trial in study(tmp_path / "r").trials:
            scores = trial.user_attrs["task_scores"]
            assert trial.user_attrs["score"] == pytest.approx(sum(scores.values()) / 2)
        row = next(r for r in best["comparison"] if r["name"] == best["name"])
        assert set(row["tasks"]) == {"sentiment", "entailment"}
        assert best["scores"]["test"]["n"] == 2
        assert len(list((tmp_path / "r" / "confirmed").glob("*-task2.safetensors"))) == 4
        Architecture.from_dict(best["architecture"])
        assert call("report", tmp_path / "r") == 0


def test_hits_of_several_tasks_have_the_mean_of_the_tasks_means():
    rows = [packed_hits([[True, False], [True, True, True, False]]), packed_hits([[True, True], [False] * 4])]
    assert rows == ["10 1110", "11 0000"]
    hits = hits_of(rows)
    assert sum(hits) / len(hits) == pytest.approx(((1 + 0.5) / 2 + (0.5 * 3) / 4) / 2)
    assert packed_hits([[True], []]) == ""
    assert hits_of(["", ""]) == ()
    assert hits_of(["10 1", "1 10"]) == ()
