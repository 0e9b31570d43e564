"""The probed head against scikit-learn on features that are taken by hand, and what it leaves alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import LoadedBackbone
from peftsearch.engine.probe import PENALTY, fit_head, put_head
from peftsearch.engine.scoring import Scorer, logits_of
from peftsearch.tasks.encoding.encoded import EncodedTexts
from peftsearch.tasks.kinds import Kind
from peftsearch.tasks.task import Split, Task
from tests.tiny import FAMILIES

CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {"batch_size": 8, "device": CPU, "autocast": None}


def data(n_classes: int, n: int = 60) -> EncodedTexts:
    generator = np.random.default_rng(0)
    rows = [generator.integers(5, 90, size=6).tolist() for _ in range(n)]
    labels = [sum(row) % n_classes if n_classes > 1 else float(sum(row)) for row in rows]
    return EncodedTexts(input_ids=rows, token_type_ids=None, labels=labels, pad_id=0)  # type: ignore[arg-type]


def scorer(encoded: EncodedTexts, kind: Kind, n_classes: int) -> Scorer:
    split = Split(texts=[""] * len(encoded), pairs=None, labels=encoded.labels)
    names = tuple(map(str, range(n_classes))) if kind == "classification" else ()
    metric = "accuracy" if kind == "classification" else "pearson"
    return Scorer(Task(name="t", kind=kind, labels=names, train=split, validation=split, test=None, metric=metric,
                       source="", fingerprint="0"))  # fmt: skip


def load(family: str, num_labels: int) -> LoadedBackbone:
    torch.manual_seed(0)
    model = FAMILIES[family](num_labels=num_labels).eval()
    model.config.pad_token_id = 0
    return LoadedBackbone(model=model, tokenizer=SimpleNamespace(), backbone=detect(model))


def features(loaded: LoadedBackbone, encoded: EncodedTexts) -> np.ndarray:
    """What the last linear map of the head reads, taken by a hook, at the last token where a family reads all."""
    maps = [m for path in loaded.backbone.head for m in loaded.model.get_submodule(path).modules()]
    last = [m for m in maps if isinstance(m, torch.nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        for i in range(len(encoded)):
            batch = encoded.collate([i])
            batch.pop("labels")
            loaded.model(**batch)
    hook.remove()
    rows = [x[0, -1] if x.dim() == 3 else x[0] for x in seen]
    return torch.stack(rows).double().numpy()


@pytest.mark.parametrize(("family", "n_classes"), [("bert", 2), ("bert", 3), ("gpt2", 3), ("distilbert", 2)])
def test_is_the_logistic_regression_of_standardised_features(family: str, n_classes: int) -> None:
    loaded, encoded = load(family, n_classes), data(n_classes)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    head = fit_head(loaded, scorer(encoded, "classification", n_classes), encoded, **OPTIONS)
    assert head is not None
    assert all(torch.equal(before[name], value) for name, value in loaded.model.state_dict().items())
    put_head(loaded.model, head)
    x = features(loaded, encoded)
    centred = family != "gpt2"  # its head has no bias
    x = x - x.mean(0) if centred else x
    x = x / np.sqrt((x**2).mean(0))
    fitted = LogisticRegression(C=1 / PENALTY, max_iter=2000, fit_intercept=centred, tol=1e-8).fit(x, encoded.labels)
    expected = fitted.predict_proba(x)
    logits = logits_of(loaded.model, encoded, **OPTIONS).double()
    np.testing.assert_allclose(logits.softmax(-1).numpy(), expected, atol=2e-3)


def test_is_the_ridge_regression_of_standardised_targets() -> None:
    loaded, encoded = load("bert", 1), data(1)
    objective = scorer(encoded, "regression", 1)
    head = fit_head(loaded, objective, encoded, **OPTIONS)
    assert head is not None
    put_head(loaded.model, head)
    x = features(loaded, encoded)
    x = (x - x.mean(0)) / x.std(0)
    y = np.array(encoded.labels)
    expected = Ridge(alpha=PENALTY).fit(x, (y - y.mean()) / y.std()).predict(x)
    np.testing.assert_allclose(logits_of(loaded.model, encoded, **OPTIONS).squeeze(-1).numpy(), expected, atol=1e-4)


def test_a_class_without_examples_is_never_predicted() -> None:
    loaded, encoded = load("bert", 4), data(3)
    head = fit_head(loaded, scorer(encoded, "classification", 4), encoded, **OPTIONS)
    assert head is not None
    put_head(loaded.model, head)
    assert 3 not in logits_of(loaded.model, encoded, **OPTIONS).argmax(-1).tolist()


def test_every_training_starts_from_the_same_head_where_it_has_more_layers() -> None:
    """RoBERTa's head has a dense layer before the output, which no probe can fit."""
    loaded, encoded = load("roberta", 3), data(3)
    heads = [fit_head(loaded, scorer(encoded, "classification", 3), encoded, **OPTIONS) for _ in range(2)]
    first, second = heads
    assert first is not None
    assert second is not None
    assert {name for name in first if name.endswith("weight")} > {"classifier.dense.weight"}
    assert all(torch.equal(first[name], second[name]) for name in first)
