"""A notebook's path on a tiny model, from loaded objects to a trained, predicting and exported model."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import peftsearch
from peftsearch.errors import PeftSearchError
from tests.runs import QUICK

SMALL = {
    "budget": "20%",
    "space": "s4",
    "strategy": QUICK,
    "steps": 12,
    "search_steps": 4,
    "seeds": 2,
    "progress": False,
}


def hit_rate(given):
    return {"hit_rate": float((given.predictions.argmax(-1) == given.label_ids).mean())}


def load(model):
    return AutoModelForSequenceClassification.from_pretrained(model)


@pytest.fixture(scope="module")
def objects(place):
    _, model, files = place
    train, validation = map(pd.read_csv, files)
    return load(model), AutoTokenizer.from_pretrained(model), train, validation


@pytest.fixture(scope="module")
def searched(place, objects):
    """A search over objects, with a metric of this module and a callback."""
    folder, _, _ = place
    model, tokenizer, train, validation = objects
    told = []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = peftsearch.search(
        model, train, validation, tokenizer=tokenizer, metric=hit_rate, device="cpu", runs=folder / "api",
        callbacks=[lambda study, trial: told.append((study.study_name, trial.number))], **SMALL,
    )  # fmt: skip
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return found, told


def test_a_search_takes_objects_a_metric_and_callbacks(searched):
    found, told = searched
    assert found.best.task.metric == "tests.whole.test_notebook:hit_rate"
    assert found.verdict.statement in repr(found)
    assert found.verdict.kind in found._repr_html_()
    assert len(told) == len(set(told)) == len(found.trials)
    assert found.comparison["name"].iloc[0] == found.best.comparison[0].name
    assert found.comparison["n"].max() == 2
    assert len(found.plot().axes[0].texts) == len(found.comparison)


def test_the_same_call_gives_the_same_run_without_training(searched, place, objects):
    found, _ = searched
    model, tokenizer, train, validation = objects
    told = []
    again = peftsearch.search(
        model, train.copy(), validation, tokenizer=tokenizer, metric=hit_rate, device="cpu",
        runs=place[0] / "api", callbacks=[lambda study, trial: told.append(trial)], **SMALL,
    )  # fmt: skip
    assert (again.path, told) == (found.path, [])


def test_a_search_goes_on(searched):
    found, _ = searched
    n = len(found.trials)
    more = found.extend(steps=14, workers=1, progress=False)
    assert (more.path, more.best.steps) == (found.path, 14)
    assert len(more.trials) > n


def test_the_trainer_reproduces_what_the_run_found(searched):
    found, _ = searched
    name = next(row["name"] for _, row in found.comparison.iterrows() if row["parameters"])
    row = next(r for r in found.best.comparison if r.name == name)
    seeds = found.trials[(found.trials["study"] == "confirm") & (found.trials["name"] == name)].set_index("seed")
    seed = int(seeds.index[0])
    trainer = found.trainer(design=name, seed=seed)
    rates = [(group["name"], group["lr"]) for group in trainer.create_optimizer().param_groups]
    assert rates[-1][0] == "head"
    assert len({rate for _, rate in rates}) > 1
    trainer.train()
    measured = trainer.evaluate()
    # The order of the batches differs, so that the score is one more draw of the same training.
    spread = 3 * max(0.05, float(np.std(row.validation["values"])))
    assert measured["eval_hit_rate"] == pytest.approx(row.validation["mean"], abs=spread)
    assert measured["eval_loss"] == pytest.approx(float(seeds["loss"].iloc[0]), abs=0.1)


def test_a_trainer_saves_and_loads_what_it_trains_alone(place, tmp_path):
    model = load(place[1])
    injection = peftsearch.inject(model, "lora+ia3", budget="20%")
    arguments = {"output_dir": str(tmp_path), "use_cpu": True, "max_steps": 2, "save_steps": 1, "learning_rate": 0.01}
    from transformers import TrainingArguments

    rows = [{"input_ids": [1, 5 + i, 2], "attention_mask": [1, 1, 1], "labels": i % 2} for i in range(16)]
    trainer = peftsearch.Trainer(model, TrainingArguments(**arguments), train_dataset=rows)
    trainer.train()
    kept = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    assert not (tmp_path / "checkpoint-2" / "model.safetensors").exists()
    assert (tmp_path / "checkpoint-2" / "peftsearch.safetensors").stat().st_size < 40_000
    other = load(place[1])
    assert peftsearch.load(other, tmp_path / "checkpoint-2").n_params == injection.n_params
    assert all(torch.equal(p, kept[name]) for name, p in other.named_parameters() if name in kept)
    longer = TrainingArguments(**{**arguments, "max_steps": 3})
    fresh = load(place[1])
    peftsearch.inject(fresh, "lora+ia3", budget="20%")
    state = peftsearch.Trainer(fresh, longer, train_dataset=rows).train(str(tmp_path / "checkpoint-2"))
    assert state.global_step == 3


def test_train_evaluate_predict_and_export(searched, objects, tmp_path):
    found, _ = searched
    name = next(row["name"] for _, row in found.comparison.iterrows() if row["parameters"])
    metrics = found.train(tmp_path / "trained", design=name, steps=4, progress=False)
    assert peftsearch.evaluate(tmp_path / "trained").score == metrics["validation"]["values"][0]
    frame = objects[3].head(3)
    predicted = peftsearch.predict(tmp_path / "trained", frame)
    assert list(predicted.columns) == ["text", "label", "predicted_label", "predicted_score"]
    texts = peftsearch.predict(tmp_path / "trained", list(frame["text"]))
    assert list(texts["predicted_score"]) == list(predicted["predicted_score"])
    folder = found.export("peftsearch", tmp_path / "exported", design=name)
    assert (folder / "peftsearch.safetensors").is_file()
    assert peftsearch.open_run(found.path).verdict.statement
    assert found.report(tmp_path / "page.html").stat().st_size > 100_000


@pytest.mark.slow
def test_classes_keep_their_names(place, objects):
    import datasets

    train, validation = objects[2:]
    classes = datasets.ClassLabel(names=["negative", "positive"])
    tables = [datasets.Dataset.from_pandas(frame).cast_column("label", classes) for frame in (train, validation)]
    found = peftsearch.search(
        str(place[1]), *tables, device="cpu", runs=place[0] / "classes", **{**SMALL, "steps": 2, "search_steps": 1}
    )
    assert found.best.task.labels == ("negative", "positive")


class Tokenised(torch.utils.data.Dataset):
    """A torch data set of examples that are tokenised and padded."""

    def __init__(self, tokenizer, frame):
        encoded = tokenizer(list(frame["text"]), padding="max_length", max_length=16, return_tensors="pt")
        labels = torch.tensor([int(label == "positive") for label in frame["label"]])
        self.columns = {**encoded, "labels": labels}

    def __len__(self):
        return len(self.columns["labels"])

    def __getitem__(self, i):
        return {name: values[i] for name, values in self.columns.items()}


@pytest.mark.slow
def test_tokenised_examples_give_the_scores_of_their_texts(place, objects):
    _, tokenizer, train, validation = objects
    options = {**SMALL, "steps": 4, "search_steps": 2, "device": "cpu"}
    tokens = [Tokenised(tokenizer, frame) for frame in (train, validation)]
    texts = peftsearch.search(str(place[1]), train, validation, runs=place[0] / "texts", **options)
    found = peftsearch.search(str(place[1]), *tokens, runs=place[0] / "tokens", **options)
    columns = ["study", "name", "seed", "score", "loss"]
    assert found.trials[columns].equals(texts.trials[columns])
    assert found.best.task.labels == ("0", "1")


class Refused:
    """A model of HF peft, as far as it is looked at."""

    peft_config = None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": Refused()}, "unwrap it first"),
        ({"train_dataset": None, "eval_dataset": [{"text": "a", "label": 0}]}, "without train_dataset"),
        ({"train_dataset": []}, "has no examples"),
        ({"train_dataset": 3}, "give a datasets.Dataset"),
        ({"task": "sentiment"}, "both say what to train on"),
        ({"tokenizer": object()}, "is for a loaded model"),
        ({"budget": "many"}, "many"),
        ({"metric": lambda given: 0.0, "workers": 2}, "cannot import it"),
        ({"metric": "no.such:thing"}, "cannot be imported"),
    ],
)
def test_faults_of_the_user_are_one_line(place, objects, tmp_path, given, told):
    usual = {"model": str(place[1]), "train_dataset": objects[2], "budget": "20%", "progress": False}
    with pytest.raises(PeftSearchError, match=told) as caught:
        peftsearch.search(**{**usual, "runs": tmp_path, **given})
    assert "\n" not in str(caught.value)


def test_an_error_of_a_callback_ends_the_search_and_the_same_call_resumes_it(place, objects):
    options = {**SMALL, "steps": 2, "search_steps": 1, "device": "cpu", "runs": place[0] / "callbacks"}
    told = []

    def third(study, trial):
        told.append(trial.number)
        if len(told) == 3:
            raise ConnectionError("no route")

    with pytest.raises(ConnectionError, match="no route"):
        peftsearch.search(str(place[1]), objects[2], objects[3], callbacks=[third], **options)
    found = peftsearch.search(str(place[1]), objects[2], objects[3], callbacks=[third], **options)
    assert len(told) == len(found.trials)
    assert not (found.trials["state"] == "fail").any()


def test_functions_of_a_session_and_tokenizers_are_told_apart(place, objects, tmp_path):
    from peftsearch.api.objects import keep_model
    from peftsearch.tasks.own_metric import register

    made = [register(lambda given, n=n: n) for n in (1.0, 2.0)]
    other = [register(lambda given: 1.0), register(lambda given: 2.0)]
    assert len({name for name, _ in other}) == 2
    assert all("#" in name for name, _ in (*made, *other))
    model, tokenizer = objects[:2]
    first = keep_model(model, tokenizer, tmp_path)
    tokenizer.model_max_length = 17
    assert keep_model(model, tokenizer, tmp_path) != first


def test_columns_of_mixed_types_are_told(place, tmp_path):
    rows = [{"text": "a", "label": 0}, {"text": 3.5, "label": "x"}]
    with pytest.raises(PeftSearchError, match="make each column of one type"):
        peftsearch.search(str(place[1]), rows, budget="20%", runs=tmp_path)


def test_a_mix_needs_a_budget_and_a_found_design_none(place, searched):
    model = load(place[1])
    with pytest.raises(PeftSearchError, match="needs a budget"):
        peftsearch.inject(model, "lora")
    with pytest.raises(PeftSearchError, match="leave the budget out"):
        peftsearch.inject(model, searched[0].path, budget="1%")


def test_print_trainable_parameters(place, capsys):
    peftsearch.inject(load(place[1]), "lora", budget="20%").print_trainable_parameters()
    assert capsys.readouterr().out.startswith("trainable params: ")
