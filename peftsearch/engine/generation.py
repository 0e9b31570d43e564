"""Scores of a generation task: log-likelihood of the references, or a comparison of greedy texts with them.

Generation is transformers' own, in batches and with a key-value cache, which `load_backbone` switches off for training.
It is plain greedy search: other settings of a checkpoint (beams, penalties, forced tokens) are ignored, so that designs
are compared by what they learnt. The methods act in every forward pass, including cached steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peftsearch.engine.loop import forward
from peftsearch.errors import Diverged
from peftsearch.options import DecodingOptions
from peftsearch.tasks.encoding.batches import eval_batches
from peftsearch.tasks.encoding.encoded import EncodedSplit
from peftsearch.tasks.encoding.pairs import IGNORED, EncodedPairs
from peftsearch.tasks.metrics import METRICS
from peftsearch.tasks.own_metric import call_own, is_own
from peftsearch.tasks.text_metrics import EACH, PACKAGES, is_installed

GREEDY = DecodingOptions()


def score_pairs(
    model: Any,
    split: EncodedPairs,
    metric: str,
    *,
    batch_size: int,
    device: torch.device,
    autocast: torch.dtype | None,
    sums: Sequence[float] | None = None,
    decoding: DecodingOptions = GREEDY,
) -> tuple[float, list[float]]:
    """Score a split by one metric; the model is left in evaluation mode.

    Args:
        model: A causal or seq2seq language model.
        split: Prompts and references.
        metric: A metric of generation tasks.
        batch_size: Examples per forward pass.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
        sums: The log-likelihood of each row, where it is known.
        decoding: How texts are written.

    Returns:
        The score, and the numbers whose mean it is: one per row for the log-likelihood, weighted by the row's tokens;
        one per prompt for ROUGE-L and matches; none for BLEU and functions, which need not be means over examples.

    Raises:
        Diverged: An output is not a finite number.
    """
    if metric == "log_likelihood":
        if sums is None:
            sums, _ = log_likelihoods(model, split, batch_size=batch_size, device=device, autocast=autocast)
        n_tokens = [len(row) for row in split.completions]
        weight = len(sums) / sum(n_tokens)
        return METRICS[metric].measure(sums, n_tokens), [weight * value for value in sums]
    texts = generate(model, split, batch_size=batch_size, device=device, autocast=autocast, decoding=decoding)
    references = [[split.references[i] for i in rows] for rows in split.groups]
    if metric in EACH:
        each = EACH[metric](texts, references)
        return sum(each) / len(each), each
    return score_of(metric, texts, references), []


def score_texts(
    model: Any,
    split: EncodedPairs,
    metric: str,
    *,
    batch_size: int,
    device: torch.device,
    autocast: torch.dtype | None,
    decoding: DecodingOptions = GREEDY,
) -> dict[str, float]:
    """Score a split by a metric and all installed ones that need a package, generating the texts only once.

    Raises:
        Diverged: An output is not a finite number.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "autocast": autocast}
    found = {"log_likelihood": score_pairs(model, split, "log_likelihood", **options)[0]}
    wanted = [name for name in dict.fromkeys((metric, *PACKAGES)) if is_installed(name) and name not in found]
    if wanted:
        texts = generate(model, split, **options, decoding=decoding)
        references = [[split.references[i] for i in rows] for rows in split.groups]
        found |= {name: score_of(name, texts, references) for name in wanted}
    return found


def score_of(metric: str, texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Score texts against their references.

    Raises:
        TaskError: A metric of the user's own fails.
    """
    return call_own(metric, texts, references) if is_own(metric) else METRICS[metric].measure(texts, references)


@torch.inference_mode()
def log_likelihoods(
    model: Any, split: EncodedSplit, *, batch_size: int, device: torch.device, autocast: torch.dtype | None
) -> tuple[list[float], list[int]]:
    """Log-probability of each row's completion, including the end token, and the completion's number of tokens.

    Raises:
        Diverged: An output is not a finite number.
    """
    model.eval()
    found, n_tokens = [0.0] * len(split), [0] * len(split)
    for indices, batch in eval_batches(split, batch_size):
        logits, labels = forward(model, batch, device, autocast)
        learnt = labels != IGNORED
        losses = logits.new_zeros(labels.shape, dtype=torch.float32)
        losses[learnt] = nn.functional.cross_entropy(logits[learnt].float(), labels[learnt], reduction="none")
        sums = losses.sum(1)
        if not bool(torch.isfinite(sums).all()):
            raise Diverged("the model's outputs are not finite on the evaluation data")
        for index, value, n in zip(indices, sums.tolist(), learnt.sum(1).tolist(), strict=True):
            found[index], n_tokens[index] = -value, n
    return found, n_tokens


@torch.inference_mode()
def generate(
    model: Any,
    split: EncodedPairs,
    *,
    batch_size: int,
    device: torch.device,
    autocast: torch.dtype | None,
    decoding: DecodingOptions = GREEDY,
) -> list[str]:
    """Continue each distinct prompt, with a key-value cache; texts are stripped of white space.

    Args:
        model: A causal or seq2seq language model, which is left in evaluation mode.
        split: The split whose `groups` are the prompts.
        batch_size: Prompts per batch; prompts of similar length are batched together.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
        decoding: How texts are written; greedily by default. `max_new_tokens` is that of the split.

    Returns:
        One text for each of the split's groups.
    """
    model.eval()
    stop = None if decoding.stop is None else decoding.stop.replace("\\n", "\n").replace("\\t", "\t")
    texts = [""] * len(split.groups)
    first = [rows[0] for rows in split.groups]
    order = sorted(range(len(first)), key=lambda i: len(split.prompts[first[i]]))
    seeded = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    precision = torch.autocast(device.type, dtype=autocast, enabled=autocast is not None)
    with _decoding(model, split, decoding), precision, seeded:
        torch.manual_seed(decoding.generation_seed)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = {k: v.to(device) for k, v in split.collate_prompts([first[i] for i in chosen]).items()}
            n_before = batch["input_ids"].shape[1] if split.start_id is None else 1
            more = {} if stop is None else {"stopping_criteria": [_until(stop, n_before, split.tokenizer)]}
            made = model.generate(**batch, **more)[:, n_before:]  # (batch, n)
            for i, row in zip(chosen, made.tolist(), strict=True):
                texts[i] = _text(row, split, stop)
    return texts


def _until(stop: str, n_before: int, tokenizer: Any) -> Callable[..., torch.Tensor]:
    """A stopping criterion: which rows hold a text behind their first tokens.

    transformers' own needs a tokenizer of subwords.
    """

    def stops(input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        texts = tokenizer.batch_decode(input_ids[:, n_before:], skip_special_tokens=True)
        return torch.tensor([stop in text for text in texts], device=input_ids.device)

    return stops


@contextmanager
def _decoding(model: Any, split: EncodedPairs, decoding: DecodingOptions) -> Iterator[None]:
    """Replace the checkpoint's generation settings while the `with` block lasts."""
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=decoding.temperature is not None,
        temperature=decoding.temperature,
        num_beams=decoding.beams,
        use_cache=True,
        max_new_tokens=split.max_new,
        eos_token_id=split.end_id,
        pad_token_id=split.pad_id,
        bos_token_id=split.tokenizer.bos_token_id,
        decoder_start_token_id=split.start_id,
    )
    try:
        yield
    finally:
        model.generation_config = own


def _text(row: Sequence[int], split: EncodedPairs, stop: str | None) -> str:
    """The text before the end token and the text that ends it."""
    tokens = list(row)
    if split.end_id in tokens:
        tokens = tokens[: tokens.index(split.end_id)]
    text: str = split.tokenizer.decode(tokens, skip_special_tokens=True)
    return (text if stop is None else text.partition(stop)[0]).strip()
