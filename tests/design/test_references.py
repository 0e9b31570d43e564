"""References: which weights they train, that the model is as before, and that no verdict hears of them."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml
from optuna.trial import TrialState
from torch.nn.functional import cross_entropy

from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import LoadedBackbone, load_backbone, reset_head
from peftsearch.design.references import FULL_LEARNING_RATE, make_reference, parse_references
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.loop import rate_factor
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError, Diverged
from peftsearch.injection.in_place import in_place
from peftsearch.report.pareto.points import read_points
from peftsearch.report.provenance import command
from peftsearch.study.objectives import MEASURES
from peftsearch.study.record import read_record
from peftsearch.tasks.encoding.batches import batches
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite
from peftsearch.tasks.task import Split, Task
from tests.generators import save_generator, save_pairs
from tests.runs import QUICK, arguments, call, kill_after, refused, save_task, start, story, study
from tests.tasks import resolve_task
from tests.tiny import FAMILIES, tiny_input

CPU = torch.device("cpu")
NAMES = ("full", "top-2")


def loaded_of(family):
    model = FAMILIES[family]()
    return LoadedBackbone(model=model, tokenizer=None, backbone=detect(model, family))


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_same(model, before):
    after = model.state_dict()
    return list(after) == list(before) and all(torch.equal(after[name], value) for name, value in before.items())


class TestWeights:
    def test_the_count_of_bert_is_the_papers_sum(self):
        """Per block: four maps of the attention, two of the feed-forward network, two norms."""
        d, d_ff = 32, 64
        block = 4 * (d * d + d) + (d * d_ff + d_ff) + (d_ff * d + d) + 2 * 2 * d
        for k in (1, 2, 4):
            assert make_reference(f"top-{k}", loaded_of("bert")).n_params == k * block

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_last_blocks_and_the_head_are_trained_and_nothing_else(self, family):
        loaded = loaded_of(family)
        model, backbone = loaded.model, loaded.backbone
        blocks = [block.path for block in backbone.stacks[-1].blocks][-1:]
        assert make_reference("full", loaded).n_params == backbone.n_params
        reference = make_reference("top-1", loaded)
        wanted = {n for n, _ in model.named_parameters() if n.startswith(tuple(f"{path}." for path in blocks))}
        assert reference.n_params == sum(p.numel() for n, p in model.named_parameters() if n in wanted)
        head = {n for n, _ in model.named_parameters() if n.startswith(tuple(f"{path}." for path in backbone.head))}
        before, flags = copied(model), [p.requires_grad for p in model.parameters()]
        with in_place(model, reference.modules):
            assert {n for n, p in model.named_parameters() if p.requires_grad} == wanted | head
            model.train()
            model(**tiny_input(model)).logits.square().sum().backward()
            torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
            assert not is_same(model, before)
        assert is_same(model, before)
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(p.grad is None for p in model.parameters())

    def test_top_blocks_are_those_of_the_last_stack(self):
        loaded = loaded_of("bart")
        assert [len(stack.blocks) for stack in loaded.backbone.stacks] == [2, 2]
        found = make_reference("top-1", loaded).modules, make_reference("top-2", loaded).modules
        layers = [[path for path in paths if "layers" in path] for paths in found]
        assert layers == [["model.decoder.layers.1"], ["model.decoder.layers.0", "model.decoder.layers.1"]]
        with pytest.raises(ConfigError, match="top-3: the decoder of bart has 2 blocks"):
            make_reference("top-3", loaded)

    def test_a_fault_gives_the_weights_back_too(self):
        model = FAMILIES["bert"]()
        before = copied(model)

        def break_it():
            with in_place(model):
                for parameter in model.parameters():
                    parameter.data.zero_()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            break_it()
        assert is_same(model, before)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("ful", "did you mean 'full'"),
            ("lora", "single methods are always compared"),
            ("top-0", "unknown reference 'top-0'"),
            ("full,", "has an empty entry"),
            ("", "has an empty entry"),
            ("top-2, top-2", "names 'top-2' twice"),
        ],
    )
    def test_names(self, text, message):
        with pytest.raises(ConfigError, match=message):
            parse_references(text)


@pytest.fixture(scope="module")
def loaded(place):
    return load_backbone(str(place[1]), num_labels=2)


class TestEngine:
    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, place):
        _, _, (train, validation) = place
        return resolve_task(train=train, validation=validation, test=validation)

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loaded, task):
        data = [encode(task, loaded.tokenizer)]
        return LocalEngine(loaded, Suite(tasks=(task,)), data, TrainingSettings(head="random"), CPU, None)

    @pytest.mark.parametrize("name", NAMES)
    def test_it_trains_as_a_plain_loop_does(self, engine, loaded, task, name):
        before = copied(loaded.model)
        reference = make_reference(name, loaded)
        job = Job(architecture=reference, learning_rate=1e-3, steps=5, seed=7, measure=False, test=True)
        outcome = engine.run(job)
        assert is_same(loaded.model, before)
        assert outcome.n_params == reference.n_params
        assert [test.score for test in outcome.tests] == [outcome.score], "test is validation here"
        assert (outcome.states, outcome.measures) == ((), {})

        fresh = load_backbone(loaded.backbone.name, num_labels=2)
        model = fresh.model.train()
        reset_head(model, fresh.backbone, 7)
        layers = ("classifier.", "encoder.layer.2.", "encoder.layer.3.") if name == "top-2" else ("",)
        params = [p for n, p in model.named_parameters() if any(part in n for part in layers)]
        optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=0.0)
        for step, batch in enumerate(batches(encode(task, fresh.tokenizer).train, 16, seed=7, steps=5)):
            torch.manual_seed(7 * 1_000_003 + step)
            optimizer.param_groups[0]["lr"] = 1e-3 * rate_factor(step, 5, 0.1)
            labels = batch.pop("labels")
            loss = cross_entropy(model(**batch).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
        assert outcome.train_loss == pytest.approx(loss.item(), abs=1e-5)

    def test_it_learns(self, engine, loaded):
        job = Job(architecture=make_reference("full", loaded), learning_rate=3e-3, steps=150, measure=False)
        assert engine.run(job).score > 0.9

    def test_several_tasks_have_their_own_heads_and_test_scores(self, loaded):
        def made_up(name, labels):
            texts = [f"w{i} film w{i % 7}" for i in range(24)]
            split = Split(texts=texts, pairs=None, labels=[i % labels for i in range(24)])
            return Task(
                name=name, kind="classification", labels=tuple("abc"[:labels]), train=split, validation=split,
                test=split, metric="accuracy", source="made up",
            )  # fmt: skip

        before = copied(loaded.model)
        tasks = (made_up("two", 2), made_up("three", 3))
        settings, data = TrainingSettings(batch_size=8), [encode(task, loaded.tokenizer, 16) for task in tasks]
        job = Job(architecture=make_reference("top-1", loaded), learning_rate=1e-3, steps=3, measure=False, test=True)
        outcome = LocalEngine(loaded, Suite(tasks=tasks), data, settings, CPU, None).run(job)
        assert tuple(test.score for test in outcome.tests) == outcome.task_scores
        assert len(outcome.tests) == 2
        assert is_same(loaded.model, before)

    @pytest.mark.parametrize("family", ["llama", "bart"])
    def test_a_generation_has_no_head(self, family, tmp_path):
        pairs = save_pairs(tmp_path)
        generator = load_backbone(save_generator(tmp_path / "model", family), num_labels=0, problem_type="generation")
        task = resolve_task(train=pairs[0], validation=pairs[1], test=pairs[1], kind="generation")
        data = [encode(task, generator.tokenizer, 64)]
        engine = LocalEngine(generator, Suite(tasks=(task,)), data, TrainingSettings(batch_size=4), CPU, None)
        before, frozen = copied(generator.model), engine.frozen()[0].score
        full = make_reference("full", generator)
        assert full.n_params == sum(p.numel() for p in generator.model.parameters())
        outcome = engine.run(Job(architecture=full, learning_rate=1e-3, steps=8, measure=False, test=True))
        assert outcome.score > frozen
        assert outcome.n_head == 0
        assert is_same(generator.model, before)


def without_references(folder):
    """The confirmation's story without references."""
    return [line for line in story(folder, "confirm") if line[0] not in NAMES]


def best_of(folder):
    return yaml.safe_load((folder / "best.yaml").read_text())


@pytest.mark.slow
class TestRun:
    @pytest.fixture(scope="class")
    @classmethod
    def again(cls, finished, tmp_path_factory):
        """Copies of a finished run, each in a folder of its own, as arguments to go on with it."""

        def make():
            runs = tmp_path_factory.mktemp("again")
            shutil.copytree(finished, runs / "r")
            return runs / "r", ["run", "--resume", "--runs", str(runs), "--name", "r"]

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, again):
        """A finished run that was asked for references."""
        folder, argv = again()
        assert call(*argv, "--baselines", "full,top-2") == 0
        return folder

    def test_they_are_trained_as_the_confirmed_designs_are(self, whole):
        own = [t for t in study(whole, "confirm").trials if t.user_attrs.get("kind") == "reference"]
        seeds = {t.user_attrs["seed"] for t in study(whole, "confirm").trials if "kind" not in t.user_attrs}
        assert [(t.user_attrs["name"], t.user_attrs["seed"]) for t in own] == [
            (name, seed) for seed in sorted(seeds) for name in NAMES
        ]
        assert {t.user_attrs["steps"] for t in own} == {6}
        assert {t.user_attrs["learning_rate"] for t in own} == {FULL_LEARNING_RATE}
        assert all(t.state == TrialState.COMPLETE for t in own)

    def test_search_verdict_and_best_are_as_without_them(self, whole, finished):
        assert story(whole) == story(finished)
        assert without_references(whole) == story(finished, "confirm")
        with_them, plain = best_of(whole), best_of(finished)
        rows = [row for row in with_them["comparison"] if not row["reference"]]
        assert {**with_them, "comparison": rows, "made": 0, "study": 0} == {**plain, "made": 0, "study": 0}
        assert sorted(p.name for p in (whole / "confirmed").iterdir()) == sorted(
            p.name for p in (finished / "confirmed").iterdir()
        ), "nobody keeps the weights of a reference"

    def test_they_stand_in_the_comparison_with_their_own_counts(self, whole, loaded):
        rows = [row for row in best_of(whole)["comparison"] if row["reference"]]
        assert [(row["name"], row["n_params"]) for row in rows] == [
            (name, make_reference(name, loaded).n_params) for name in NAMES
        ]
        assert [row["n_changed"] for row in rows] == [row["n_params"] for row in rows], "they train what they change"
        for row in rows:
            own = [t.value for t in study(whole, "confirm").trials if t.user_attrs["name"] == row["name"]]
            assert row["validation"]["values"] == own
            assert (row["share"], row["search_score"], row["baseline"]) == (None, None, False)
        trials = [t for t in study(whole, "confirm").trials if t.user_attrs["name"] in NAMES]
        costs = {t.user_attrs["name"]: t.user_attrs["measures"] for t in trials}
        assert all(set(measures) == set(MEASURES) for measures in costs.values())
        assert all(costs[row["name"]]["changed_params"] == row["n_params"] for row in rows)
        assert costs["full"]["disk_bytes"] == 4 * costs["full"]["params"]
        assert costs["full"]["inference_flops"] == costs["top-2"]["inference_flops"]
        assert costs["full"]["train_flops"] > costs["top-2"]["train_flops"]
        assert costs["full"]["peak_memory_bytes"] > costs["top-2"]["peak_memory_bytes"]
        table = pd.read_csv(whole / "trials.csv")
        assert table[table.kind == "reference"].name.tolist() == [*NAMES, *NAMES]
        assert set(table[table.kind == "reference"].n_params) == {row["n_params"] for row in rows}

    def test_the_table_and_the_report_show_them_below_the_designs(self, whole, capsys):
        assert call("run", "--resume", "--runs", whole.parent, "--name", "r") == 0, "the study keeps their names"
        lines = capsys.readouterr().out.splitlines()
        places = [i for i, line in enumerate(lines) if "(reference)" in line]
        assert len(places) == 2
        assert min(places) > max(i for i, line in enumerate(lines) if "(baseline)" in line)
        assert "  top-2: the weights of the last 2 blocks" in lines
        record = read_record(whole)
        designs = record.confirmed()
        assert [c.title for c in designs][-2:] in (["full (reference)", "top-2 (reference)"],
                                                   ["top-2 (reference)", "full (reference)"])  # fmt: skip
        assert not any(c.reference for c in designs[:-2])
        assert "--baselines full,top-2" in command(record)
        assert call("report", whole) == 0
        text = (whole / "report.html").read_text()
        assert "References train the model&#x27;s own weights" in text
        assert "validation, reference" in text

    def test_they_are_on_no_front(self, whole, finished):
        points = read_points(whole).points
        assert not {p.name for p in points} & set(NAMES)
        assert len(points) == len(read_points(finished).points)

    @pytest.mark.slow
    def test_kill_9_and_resume_equal_an_uninterrupted_run(self, again, whole):
        folder, argv = again()
        lines = kill_after(start([*argv, "--baselines", "full,top-2"]), "   full ")
        assert "-- references: 4 trials" in "".join(lines)
        begun = [t for t in study(folder, "confirm").trials if t.user_attrs.get("kind") == "reference"]
        assert 1 <= sum(t.state == TrialState.COMPLETE for t in begun) < 4
        done = subprocess.run([sys.executable, "-m", "peftsearch", *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Resuming" in done.stdout
        assert story(folder, "confirm") == story(whole, "confirm")
        keys = ("verdict", "name", "scores", "comparison")
        assert [best_of(folder)[k] for k in keys] == [best_of(whole)[k] for k in keys]

    def test_one_that_fails_is_said_and_changes_nothing(self, again, finished, monkeypatch, capsys):
        def diverge(self, job, report=None):
            raise Diverged("the loss is nan at step 3")

        monkeypatch.setattr(LocalEngine, "run", diverge)
        folder, argv = again()
        monkeypatch.setattr(LocalEngine, "calibrate", lambda *_: (0.0, 0.0))
        assert call(*argv, "--baselines", "top-1") == 0
        assert "top-1: Diverged: the loss is nan at step 3" in capsys.readouterr().out
        row = best_of(folder)["comparison"][-1]
        assert (row["name"], row["validation"]) == ("top-1", None)
        assert best_of(folder)["verdict"] == best_of(finished)["verdict"]

    def test_the_test_split_is_read_for_them(self, place, tmp_path):
        _, model, files = place
        (tmp_path / "more").mkdir()
        test, _ = save_task(tmp_path / "more", n_train=40, n_validation=8, seed=5)
        argv = arguments(model, files, tmp_path, "--test", str(test), "--strategy", QUICK, "--trials", "1")
        assert call(*argv, "--baselines", "top-1") == 0
        row = best_of(tmp_path / "r")["comparison"][-1]
        assert (row["name"], row["test"]["n"]) == ("top-1", 2)
        own = next(c for c in read_record(tmp_path / "r").confirmed() if c.reference)
        assert list(own.test.values) == row["test"]["values"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--baselines", "ful"], "did you mean 'full'"),
        (["--baselines", "full,top-5"], "top-5: the encoder of .* has 4 blocks; give at most top-4"),
    ],
)
def test_refused(args, tmp_path, capsys, more, message):
    import re

    assert re.search(message, refused(capsys, *args(*more)))
    assert not (tmp_path / "runs").exists()


def test_packed_weights_are_not_trained(args, capsys):
    pytest.importorskip("bitsandbytes")
    line = refused(capsys, *args("--baselines", "full", "--quantize", "nf4"))
    assert "packs them so that they cannot be trained; leave one of them out" in line


def test_a_sweep_has_none(place, tmp_path, capsys):
    _, model, files = place
    argv = ["pareto", "--budgets", "10%,20%", *arguments(model, files, tmp_path)[3:]]
    assert "Unknown option: --baselines" in refused(capsys, *argv, "--baselines", "full")
