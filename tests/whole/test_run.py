"""`peftsearch run` from end to end on a tiny model: the result, resuming, failures, and what is refused."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.engine.local import LocalEngine
from peftsearch.errors import Diverged
from peftsearch.study.objectives import MEASURES
from tests.runs import BRIEF, QUICK, arguments, call, kill_after, refused, save_model, start, story, study


class TestResult:
    def test_best_yaml_holds_what_is_promised(self, finished):
        best = yaml.safe_load((finished / "best.yaml").read_text())
        assert best["verdict"]["kind"] in {"winner", "equivalent", "baseline", "tie", "no_signal"}
        architecture = Architecture.from_dict(best["architecture"])
        assert architecture.n_params == best["budget"]["used"] <= best["budget"]["n_params"]
        assert best["scores"]["validation"]["n"] == 2
        assert best["model"]["revision"].startswith("sha256:")
        assert best["task"]["fingerprint"]
        assert {"torch", "transformers", "optuna", "peftsearch"} <= set(best["versions"])
        Design.from_dict(best["design"])
        names = [row["name"] for row in best["comparison"]]
        assert {"head", "lora", "adapter", "bitfit", "prefix", "s4-paper"} <= set(names)
        assert [s["stage"] for s in best["stages"]][:3] == ["allocation", "tunable", "methods.G1"] or (
            best["stages"][0]["stage"] == "grouping"
        )

    def test_the_winners_mean_is_at_least_the_best_baselines(self, finished):
        best = yaml.safe_load((finished / "best.yaml").read_text())
        confirmed = [r for r in best["comparison"] if r["validation"]]
        pick = next(r for r in confirmed if r["name"] == best["name"])
        assert pick["validation"]["mean"] == max(r["validation"]["mean"] for r in confirmed)

    def test_what_is_changed_stands_beside_what_is_trained(self, finished, capsys):
        rows = {row["name"]: row for row in yaml.safe_load((finished / "best.yaml").read_text())["comparison"]}
        assert rows["bitfit"]["n_changed"] == rows["bitfit"]["n_params"]
        assert rows["lora"]["n_changed"] > rows["lora"]["n_params"], "whole matrices"
        assert call("run", "--resume", "--runs", finished.parent, "--name", finished.name) == 0
        out = capsys.readouterr().out
        line = next(line for line in out.splitlines() if "lora (baseline)" in line)
        assert f"{rows['lora']['n_changed']:,}" in line

    @pytest.mark.parametrize(("kind", "status"), [("no_signal", 3), ("tie", 0)])
    def test_a_script_can_see_that_nothing_was_learned(self, finished, tmp_path, kind, status):
        folder = Path(shutil.copytree(finished, tmp_path / "r"))
        best = yaml.safe_load((folder / "best.yaml").read_text())
        best["verdict"]["kind"] = kind
        (folder / "best.yaml").write_text(yaml.safe_dump(best))
        argv = ("run", "--resume", "--runs", tmp_path, "--name", "r")
        assert (call(*argv, "--exit-code"), call(*argv)) == (status, 0)

    def test_every_training_is_a_trial(self, finished):
        search, confirm = study(finished), study(finished, "confirm")
        assert [t.user_attrs.get("baseline") for t in search.trials[:11]] == [
            "head", "lora", "lora:ffn", "lora:all", "ia3", "bitfit", "layernorm", "adapter", "prefix", "krona",
            "s4-paper",
        ]  # fmt: skip
        first = [t for t in search.trials if t.user_attrs.get("kind") != "rate"]
        assert len(first) <= 11 + 14
        assert {t.user_attrs["seed"] for t in confirm.trials} == {1000, 1001}
        table = pd.read_csv(finished / "trials.csv")
        assert len(table) == len(search.trials) + len(confirm.trials)

    def test_every_completed_trial_has_its_score_and_measures(self, finished):
        table = pd.read_csv(finished / "trials.csv")
        assert set(MEASURES) - {"params"} <= set(table.columns)
        for which in ("search", "confirm"):
            done = [t for t in study(finished, which).trials if t.state == TrialState.COMPLETE]
            for t in done:
                measures = t.user_attrs["measures"]
                assert set(measures) == set(MEASURES)
                assert measures["params"] == t.user_attrs["n_params"]
                assert t.value == (-t.user_attrs["loss"] if which == "search" else t.user_attrs["score"])
                row = table[(table.study == which) & (table.number == t.number)].iloc[0]
                assert row.peak_memory_bytes == measures["peak_memory_bytes"]
                assert row.latency_s == measures["latency_s"]

    def test_the_settings_hold_objectives_and_constraints(self, finished):
        settings = yaml.safe_load((finished / "settings.yaml").read_text())
        assert (settings["objectives"], settings["constraints"]) == (["score"], {})

    def test_best_yaml_goes_into_a_model_as_the_readme_says(self, place, finished):
        import peftsearch
        from peftsearch.backbone.load import load_backbone

        _, model, _ = place
        best = yaml.safe_load((finished / "best.yaml").read_text())
        loaded = load_backbone(str(model), num_labels=2)
        injection = peftsearch.inject(loaded.model, peftsearch.Architecture.from_dict(best["architecture"]))
        n_trained = sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
        assert n_trained == best["budget"]["used"] + sum(p.numel() for p in loaded.model.classifier.parameters())
        injection.remove()

    def test_confirmed_states_are_safetensors(self, finished):
        files = list((finished / "confirmed").iterdir())
        assert files
        assert {f.suffix for f in files} == {".safetensors"}

    def test_show_draws_the_architecture(self, finished, capsys):
        assert call("show", finished) == 0
        assert call("show", finished / "best.yaml") == 0
        out = capsys.readouterr().out
        budget = yaml.safe_load((finished / "best.yaml").read_text())["budget"]
        title = f"{budget['used']:,} trainable parameters, {budget['changed']:,} changed"
        assert title in " ".join(out.split()), "a narrow terminal wraps it"
        assert "block, input left" in out
        assert yaml.safe_load((finished / "best.yaml").read_text())["verdict"]["statement"] in out


class TestResume:
    def test_the_same_command_again_trains_nothing_and_gives_the_same(self, place, finished, capsys):
        folder, model, files = place
        before = story(finished), story(finished, "confirm"), (finished / "best.yaml").read_text()
        assert call(*arguments(model, files, folder / "whole", "--json")) == 0
        after = yaml.safe_load((finished / "best.yaml").read_text())
        shown = json.loads(capsys.readouterr().out)
        assert (story(finished), story(finished, "confirm")) == before[:2]
        assert {**after, "made": 0} == {**yaml.safe_load(before[2]), "made": 0} == {**shown, "made": 0}

    @pytest.mark.parametrize("marker", ["adapter ", "trial 9 ", "-- confirm"])
    @pytest.mark.slow
    def test_kill_9_and_resume_equal_an_uninterrupted_run(self, place, finished, tmp_path, marker):
        _, model, files = place
        argv = arguments(model, files, tmp_path / "killed")
        lines = kill_after(start(argv), marker, delay_s=0.05)
        assert any(marker in line for line in lines), "".join(lines)
        done = [s for s in story(tmp_path / "killed" / "r") if s[-1] == TrialState.COMPLETE]
        assert done
        resumed = start([*argv, "--resume"])
        out, _ = resumed.communicate(timeout=120)
        assert resumed.returncode == 0, out
        assert "Resuming" in out
        assert story(tmp_path / "killed" / "r") == story(finished)
        assert story(tmp_path / "killed" / "r", "confirm") == story(finished, "confirm")
        assert study(tmp_path / "killed" / "r").user_attrs["stages"] == study(finished).user_attrs["stages"]

    def test_resume_needs_no_more_than_the_name(self, place, finished, capsys, monkeypatch):
        folder, _, _ = place
        before = story(finished), story(finished, "confirm")
        assert call("run", "--resume", "--runs", folder / "whole", "--name", "r") == 0
        assert call("run", "--resume", "--runs", folder / "whole") == 0
        assert (story(finished), story(finished, "confirm")) == before

    @pytest.mark.slow
    def test_studies_of_one_storage_do_not_mix(self, args, tmp_path):
        url = f"sqlite:///{tmp_path / 'shared.db'}"
        assert call(*args("--storage", url)) == 0
        assert call(*args("--storage", url, "--runs", tmp_path / "other", "--budget", "30%")) == 0
        bests = [yaml.safe_load((p / "r" / "best.yaml").read_text()) for p in (tmp_path / "runs", tmp_path / "other")]
        shares = [max(row["share"] for row in best["comparison"] if row["share"]) for best in bests]
        assert max(shares) <= 1

    def test_resume_without_a_study(self, args, tmp_path, capsys):
        assert call(*args("--resume")) == 2
        assert "no study to resume" in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()


class TestFailures:
    def test_a_failed_trial_is_recorded_and_the_search_goes_on(self, args, tmp_path, monkeypatch):
        run, calls = LocalEngine.run, []

        def flaky(self, job, report=None):
            calls.append(job)
            if len(calls) in (8, 12):
                raise Diverged("the loss is nan at step 2")
            if len(calls) == 14:
                raise RuntimeError("out of\nmemory")
            return run(self, job, report)

        monkeypatch.setattr(LocalEngine, "run", flaky)
        assert call(*args("--strategy", QUICK, *BRIEF)) == 0
        failed = [t for t in study(tmp_path / "runs" / "r").trials if t.state == TrialState.FAIL]
        assert [t.user_attrs["reason"] for t in failed] == [
            "Diverged: the loss is nan at step 2", "Diverged: the loss is nan at step 2", "RuntimeError: out of memory",
        ]  # fmt: skip

    def test_a_learning_rate_without_measure_is_recorded_as_diverged(self, args, tmp_path, capsys):
        assert call(*args("--learning-rate", "1e30")) in (0, 1)
        reasons = [t.user_attrs.get("reason", "") for t in study(tmp_path / "runs" / "r").trials]
        assert any("Diverged" in r for r in reasons)

    def test_all_failed_exits_1_and_says_why(self, args, monkeypatch, capsys):
        monkeypatch.setattr(LocalEngine, "calibrate", lambda *a, **k: (0.1, 0.1))

        def fail(self, job, report=None):
            raise Diverged("the loss is nan at step 1")

        monkeypatch.setattr(LocalEngine, "run", fail)
        assert call(*args()) == 1
        assert "trials failed: Diverged: the loss is nan at step 1" in capsys.readouterr().err


class TestBudgets:
    def test_a_budget_that_holds_no_uniform_baseline(self, args, tmp_path, capsys):
        """64 parameters: one block's prefix, and none of the baselines but the head."""
        assert call(*args("--budget", "64", "--strategy", QUICK, "--trials", "3")) == 0
        assert "does not fit" in capsys.readouterr().out

    def test_a_method_that_is_misspelt_in_a_space(self, args, tmp_path, capsys):
        path = tmp_path / "mine.yaml"
        path.write_text("allocations: [uniform]\nmethods: [lora, adpter]\n")
        assert "unknown method 'adpter'; did you mean 'adapter'" in refused(capsys, *args("--space", path))


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


class TestStrategies:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "strategy",
        ["random", *map(slow, ("tpe", "hyperband", "sensitivity"))],
    )
    def test_other_strategies_and_pruning(self, args, tmp_path, strategy):
        assert call(*args("--strategy", strategy, "--search-steps", "4", "--trials", "6", "--seeds", "1")) == 0
        kept = study(tmp_path / "runs" / "r")
        trials = [t for t in kept.trials if t.user_attrs.get("kind") is None]
        if strategy == "sensitivity":
            assert [t.params for t in trials[:6]] == kept.user_attrs["sensitivity"]["designs"]
        assert sum(not t.user_attrs.get("infeasible", False) for t in trials) == 6

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "space",
        ["uniform", "s4-plus", "autopeft", *map(slow, ("lora", "s4-lr"))],
    )
    def test_other_spaces(self, args, tmp_path, space):
        assert call(*args("--space", space, "--strategy", QUICK, *BRIEF)) == 0
        best = yaml.safe_load((tmp_path / "runs" / "r" / "best.yaml").read_text())
        assert best["space"] == space
        if space == "s4-lr":
            assert sum(r["name"].startswith("lora lr=") for r in best["comparison"]) == 3

    def test_a_decoder_without_biases_leaves_bitfit_out(self, place, tmp_path, capsys):
        _, _, files = place
        llama = save_model(tmp_path / "llama", "llama")
        argv = arguments(llama, files, tmp_path / "runs", "--strategy", QUICK, *BRIEF)
        assert call(*argv) == 0
        out = capsys.readouterr().out
        assert "methods that cannot act on this backbone are left out: bitfit" in out
        best = yaml.safe_load((tmp_path / "runs" / "r" / "best.yaml").read_text())
        assert "bitfit" not in {r["name"] for r in best["comparison"]}

    def test_count_head(self, args, tmp_path):
        assert call(*args("--count-head", "--strategy", QUICK, *BRIEF)) == 0
        best = yaml.safe_load((tmp_path / "runs" / "r" / "best.yaml").read_text())
        model_params = best["model"]["n_params"]
        assert best["budget"]["n_params"] == int(0.2 * model_params) - (32 * 2 + 2)


def test_the_model_is_the_same_after_a_search(place, finished):
    """The folder of the model is only read."""
    _, model, _ = place
    best = yaml.safe_load((finished / "best.yaml").read_text())
    from peftsearch.backbone.load import load_backbone

    loaded = load_backbone(str(model), num_labels=2)
    assert loaded.backbone.revision == best["model"]["revision"]
    assert Path(model).is_dir()
