"""The probed head: a linear model fitted on the frozen backbone's features, from which every training starts.

A fresh head learns at its own pace, and what a short training shows then is mostly that pace. So the head's output map
is fitted first, by logistic regression (ridge regression for targets) on standardised features, with the standardising
folded into its weight and bias. The penalty is strong on purpose: dropout, which the features are computed without,
would undo a head of large norm in the first steps (LP-FT with LoRA, arXiv 2405.16747).

The features are what the head's output map reads. Layers of the head before it keep their random initial values, the
same ones for every training.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.load import LoadedBackbone, reset_head
from peftsearch.engine.scoring import Scorer, logits_of
from peftsearch.tasks.encoding.encoded import EncodedSplit
from peftsearch.tasks.encoding.spans import FIRST, LAST
from peftsearch.tasks.encoding.subset import at_most
from peftsearch.tasks.kinds import QUESTIONS, Answers, flat

PENALTY = 100.0
"""Weight of the penalty: 1 / C of scikit-learn's logistic regression, alpha of its ridge regression."""
MOST_EXAMPLES = 20_000
"""Most training examples that the head is fitted on."""
_SEED = 0
"""Seed of the head's other layers: the same for every training of every study."""
HeadStart = Mapping[str, Tensor]
"""Values of the head's parameters by their names in the model."""


def fit_head(
    loaded: LoadedBackbone,
    objective: Scorer,
    data: EncodedSplit,
    *,
    batch_size: int,
    device: torch.device,
    autocast: torch.dtype | None,
) -> HeadStart | None:
    """Fit the head that the model wears on its own features; the model is left as it was.

    Args:
        loaded: The model, without an architecture in it.
        objective: The task's loss, which standardises the targets of a regression.
        data: Training examples.
        batch_size: Examples per forward pass.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.

    Returns:
        The head's values; None where the model has no head, or none whose output is one linear map.
    """
    model: Any = loaded.model
    found = output_map(model, loaded.backbone.head, objective.n_outputs)
    if found is None:
        return None
    path, output = found
    before = {name: value.detach().clone() for name, value in _head(model, loaded.backbone.head).items()}
    reset_head(model, loaded.backbone, _SEED)
    try:
        data = at_most(data, max(1, MOST_EXAMPLES * len(data) // max(len(data), len(flat(data.labels)))))
        model.set_submodule(path, nn.Identity())
        try:
            x = logits_of(model, data, batch_size=batch_size, device=device, autocast=autocast)
        finally:
            model.set_submodule(path, output)
        if x.shape[1:] != (output.in_features,) or not bool(torch.isfinite(x).all()):
            return None
        weight, bias = _fit(x.double(), data.labels, objective, centred=output.bias is not None)
        values = {name: value.detach().clone() for name, value in _head(model, loaded.backbone.head).items()}
        values[f"{path}.weight"] = weight.to(output.weight)
        if output.bias is not None:
            values[f"{path}.bias"] = bias.to(output.bias)
        return values
    finally:
        put_head(model, before)


def output_map(model: nn.Module, head: tuple[str, ...], n_outputs: int) -> tuple[str, nn.Linear] | None:
    """Path and module of the head's last linear map, whose outputs are the logits; None where there is none."""
    maps = [
        (f"{path}.{name}" if name else path, module)
        for path in head
        for name, module in model.get_submodule(path).named_modules()
        if isinstance(module, nn.Linear)
    ]
    return maps[-1] if maps and maps[-1][1].out_features == n_outputs else None


@torch.no_grad()
def put_head(model: nn.Module, values: HeadStart) -> None:
    """Give the parameters of a model's head their values."""
    for name, value in values.items():
        model.get_parameter(name).copy_(value)


def _head(model: nn.Module, head: tuple[str, ...]) -> dict[str, nn.Parameter]:
    return {f"{path}.{name}": p for path in head for name, p in model.get_submodule(path).named_parameters()}


def _fit(x: Tensor, labels: Answers, objective: Scorer, *, centred: bool) -> tuple[Tensor, Tensor]:
    """Weight `(outputs, features)` and bias `(outputs,)` on plain features `(n, features)`.

    Args:
        x: Features.
        labels: What is right for each example; of tags, features have a row for each word.
        objective: The task's loss.
        centred: Whether features are centred and an intercept is fitted, which needs a bias.
    """
    from sklearn.linear_model import Ridge

    mean = x.mean(0) if centred else torch.zeros_like(x[0])
    scale = (x - mean).square().mean(0).sqrt().clamp_min(1e-6)
    standardised = ((x - mean) / scale).numpy()
    if objective.is_regression:
        targets = (torch.tensor(labels, dtype=torch.float64) - objective.mean) / objective.scale
        ridge = Ridge(alpha=PENALTY, fit_intercept=centred).fit(standardised, targets.numpy())
        weight, bias = torch.tensor(ridge.coef_)[None], torch.as_tensor(ridge.intercept_, dtype=x.dtype).reshape(1)
    elif objective.kind == "multi_label":
        weight, bias = _fit_each(standardised, torch.tensor(labels), centred)
    elif objective.kind == QUESTIONS:
        marks = torch.tensor(flat(labels))
        weight, bias = _fit_each(standardised, torch.stack([marks & FIRST, (marks & LAST) // LAST], dim=1), centred)
    else:
        weight, bias = _every_class(_logistic(standardised, flat(labels), centred), objective.n_outputs)
    weight = weight / scale
    return weight, bias - weight @ mean


def _fit_each(x: Any, truth: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """A logistic regression for each class `(n, classes)` on features `(n, features)`; none for a constant class."""
    share = truth.double().mean(0).clamp(0.5 / len(truth), 1 - 0.5 / len(truth))
    weight, bias = torch.zeros(truth.shape[1], x.shape[1], dtype=torch.float64), torch.logit(share)
    for k in range(truth.shape[1]):
        if 0 < int(truth[:, k].sum()) < len(truth):
            model = _logistic(x, truth[:, k], centred)
            weight[k], bias[k] = torch.tensor(model.coef_[0]), float(model.intercept_[0]) if centred else 0.0
    return weight, bias


def _logistic(x: Any, labels: Any, centred: bool) -> Any:
    """A logistic regression of labels `(n,)` on features `(n, features)`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # training goes on from wherever it stops
        return LogisticRegression(C=1 / PENALTY, max_iter=500, fit_intercept=centred).fit(x, labels)


def _every_class(model: Any, n_classes: int) -> tuple[Tensor, Tensor]:
    """Rows for every class, from scikit-learn's, which has one row for two classes and none for absent ones."""
    coefficients, intercepts = torch.tensor(model.coef_), torch.tensor(model.intercept_).expand(len(model.coef_))
    if len(coefficients) == 1:
        coefficients, intercepts = (
            torch.cat([-coefficients, coefficients]) / 2,
            torch.cat([-intercepts, intercepts]) / 2,
        )
    weight = torch.zeros(n_classes, coefficients.shape[1], dtype=coefficients.dtype)
    bias = torch.full((n_classes,), float(intercepts.min()) - 1.0, dtype=coefficients.dtype)
    for row, label in enumerate(model.classes_):
        weight[int(label)], bias[int(label)] = coefficients[row], intercepts[row]
    return weight, bias
