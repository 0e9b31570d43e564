"""The training loss: weights and smoothing against scikit-learn and torch, tags and sets against transformers."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from peftsearch.engine.loop import cut
from peftsearch.engine.scoring import Scorer, class_weights, logits_of
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError
from peftsearch.tasks.encoding.encoded import EncodedTexts
from peftsearch.tasks.encoding.spans import EncodedSpans
from peftsearch.tasks.encoding.tags import EncodedTags
from peftsearch.tasks.task import AnswerSplit, LabelsSplit, Split, TagSplit, Task

LABELS = [0, 0, 0, 1, 0, 2, 0, 1]


def task_of(labels, kind="classification"):
    split = Split(texts=[str(i) for i in range(len(labels))], pairs=None, labels=labels)
    names = ("a", "b", "c") if kind == "classification" else ()
    metric = "accuracy" if kind == "classification" else "pearson"
    return Task(
        name="t", kind=kind, labels=names, train=split, validation=split, test=None, metric=metric, source="here"
    )


def test_weights_are_those_of_scikit_learn():
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=np.array(LABELS))
    assert class_weights(task_of(LABELS)).tolist() == pytest.approx(wanted)


def test_the_loss_is_weighted_and_smoothed():
    task, logits, labels = task_of(LABELS), torch.randn(8, 3, generator=torch.manual_seed(0)), torch.tensor(LABELS)
    settings = TrainingSettings(class_weights="balanced", label_smoothing=0.1)
    each = torch.nn.CrossEntropyLoss(weight=class_weights(task), label_smoothing=0.1, reduction="none")(logits, labels)
    loss = Scorer(task, settings).loss
    assert loss(logits, labels) == pytest.approx(each.mean().item())
    halves = (loss(logits[:4], labels[:4]) + loss(logits[4:], labels[4:])) / 2
    assert halves == pytest.approx(each.mean().item()), "parts of a batch count as the whole"
    plain = torch.nn.CrossEntropyLoss()(logits, labels)
    assert Scorer(task, TrainingSettings()).loss(logits, labels) == pytest.approx(plain.item())


@pytest.mark.parametrize("own", [{"class_weights": "balanced"}, {"label_smoothing": 0.1}])
def test_a_regression_has_no_classes_to_weigh(own):
    with pytest.raises(ConfigError, match="is not for regression; leave it out"):
        Scorer(task_of([0.5, 1.5, 2.5], "regression"), TrainingSettings(**own))


OPTIONS = {"batch_size": 2, "device": torch.device("cpu"), "autocast": None}
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 40}
ROWS = [[1, 5, 6, 7, 2], [1, 8, 2], [1, 9, 10, 2]]


def bert(kind, **more):
    torch.manual_seed(0)
    return kind(BertConfig(**TINY, **({"num_labels": 3} | more), pad_token_id=0)).eval()


class TestTags:
    TAGS = ((0, 1, 2), (2,), (1, 0))

    @pytest.fixture
    @classmethod
    def parts(cls):
        places = [[1, 2, 3], [1], [1, 2]]
        encoded = EncodedTags(
            input_ids=ROWS, token_type_ids=None, labels=[list(row) for row in cls.TAGS], pad_id=0, places=places,
            words=[list(range(len(row))) for row in places],
        )  # fmt: skip
        split = TagSplit.of([["w"] * len(row) for row in places], encoded.labels)
        names = ("O", "B-a", "I-a")
        task = Task(name="t", kind="tagging", labels=names, train=split, validation=split, test=None,
                    metric="entity_f1", source="here")  # fmt: skip
        return Scorer(task, TrainingSettings()), encoded, bert(BertForTokenClassification)

    def test_the_loss_is_that_of_transformers(self, parts):
        scorer, encoded, model = parts
        batch = encoded.collate([0, 1, 2])
        wanted = model(**batch).loss
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        assert scorer.loss(logits, batch["labels"]).item() == pytest.approx(wanted.item())
        found = scorer.evaluate(model, encoded, **OPTIONS)
        assert found.loss == pytest.approx(wanted.item(), rel=1e-5), "the mean over examples is that over words"
        assert len(found.losses) == 3

    def test_outputs_are_those_of_the_words_in_their_order(self, parts):
        _, encoded, model = parts
        whole = logits_of(model, encoded, **OPTIONS)
        with torch.no_grad():
            for i, start in ((0, 0), (1, 3), (2, 4)):
                own = model(torch.tensor([ROWS[i]])).logits[0, encoded.places[i]]
                torch.testing.assert_close(whole[start : start + len(own)], own, atol=1e-6, rtol=0)
        shares = [logits_of(model, encoded, **OPTIONS, part=(k, 2)) for k in range(2)]
        torch.testing.assert_close(sum(shares), whole)


def test_answers_have_the_loss_of_transformers():
    rows, ends = [[5, 6, 7], [8, 9], [9, 10, 11, 12]], [(1, 2), (0, 0), (3, 3)]
    marks = [[0, 1, 2], [3, 0], [0, 0, 0, 3]]
    encoded = EncodedSpans(
        input_ids=rows, token_type_ids=None, labels=marks, pad_id=0, places=[list(range(len(r))) for r in rows],
        spans=[[(0, 0)] * len(r) for r in rows], contexts=["w"] * 3, references=[[]] * 3,
    )  # fmt: skip
    split = AnswerSplit.asked(["w"] * 3, ["w"] * 3)
    task = Task(name="t", kind="question_answering", labels=(), train=split, validation=split, test=None,
                metric="answer_match", source="here")  # fmt: skip
    scorer, model = Scorer(task, TrainingSettings()), bert(BertForTokenClassification, num_labels=2)
    plain = BertForQuestionAnswering(BertConfig(**TINY, pad_token_id=0)).eval()
    plain.bert.load_state_dict(model.bert.state_dict())
    plain.qa_outputs.load_state_dict(model.classifier.state_dict())
    wanted = [
        plain(torch.tensor([row]), start_positions=torch.tensor([a]), end_positions=torch.tensor([b])).loss.item()
        for row, (a, b) in zip(rows, ends, strict=True)
    ]
    assert scorer.evaluate(model, encoded, **OPTIONS).losses == pytest.approx(wanted, rel=1e-4)

    def loss(batch):
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        return scorer.loss(logits, batch["labels"]).item()

    whole = encoded.collate([0, 1, 2])
    assert loss(whole) == pytest.approx(sum(wanted) / 3, rel=1e-4), "padding is no candidate"
    assert sum(share * loss(part) for part, share in cut(whole, 2)) == pytest.approx(sum(wanted) / 3, rel=1e-4)


def test_several_classes_have_the_loss_of_transformers():
    sets = [[1, 0, 1], [0, 0, 0], [0, 1, 1]]
    encoded = EncodedTexts(input_ids=ROWS, token_type_ids=None, labels=sets, pad_id=0)
    split = LabelsSplit(texts=["a", "b", "c"], pairs=None, labels=[0] * 3, sets=sets)
    task = Task(name="t", kind="multi_label", labels=("x", "y", "z"), train=split, validation=split, test=None,
                metric="micro_f1", source="here")  # fmt: skip
    scorer = Scorer(task, TrainingSettings())
    model = bert(BertForSequenceClassification, problem_type="multi_label_classification")
    batch = encoded.collate([0, 1, 2])
    wanted = model(**batch | {"labels": batch["labels"].float()}).loss
    found = scorer.evaluate(model, encoded, **OPTIONS)
    assert found.loss == pytest.approx(wanted.item(), rel=1e-5)
    logits = logits_of(model, encoded, **OPTIONS)
    assert scorer.loss(logits, batch["labels"]) == pytest.approx(wanted.item(), rel=1e-5)
    with pytest.raises(ConfigError, match="--label-smoothing: is not for multi-label classification"):
        Scorer(task, TrainingSettings(label_smoothing=0.1))
