"""Cached, batched, left-padded greedy generation writes what a plain loop over single prompts writes, uncached."""

import pytest
import torch

from peftsearch.backbone.detect import detect
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.engine.generation import generate, log_likelihoods
from peftsearch.injection.inject import inject
from peftsearch.methods import METHODS
from peftsearch.options import DecodingOptions
from peftsearch.tasks.encoding.pairs import encode_pairs
from peftsearch.tasks.task import Split, Task
from tests.generators import CONFIGS, END, build, word_tokenizer

PROMPTS = ["name w1 area north", "name w2", "the old inn w3 w4 stands in the new place at w5", "name w1 area north"]
COMPLETIONS = ["w1 is in the north", "w2 stands", "an old inn", "w1 stands in the north of w9"]
CPU = torch.device("cpu")
METHOD_SIZES = {"prefix": 3, "lora": 2, "adapter": 4}
REFUSED = ("bloom", "prefix")
"""BLOOM has an attention of its own."""
CASES = [(family, method) for family in CONFIGS for method in (None, *METHOD_SIZES) if (family, method) != REFUSED]


@pytest.fixture(scope="module", params=list(CONFIGS))
def prepared(request):
    """A model, its anatomy, and its split of four rows with three distinct prompts."""
    model = build(request.param)
    seq2seq = model.config.is_encoder_decoder
    split = Split(texts=PROMPTS, pairs=COMPLETIONS, labels=[0] * 4)
    task = Task(
        name="t", kind="generation", labels=(), train=split, validation=split, test=None, metric="bleu", source="here"
    )
    start = model.config.decoder_start_token_id if seq2seq else None
    return model, detect(model), encode_pairs(task, word_tokenizer(seq2seq), 32, start).train


def uniform(backbone, method):
    """One method on all blocks; nothing for None."""
    if method is None:
        return Architecture(placements=())
    size = METHOD_SIZES[method]
    return Architecture(
        placements=tuple(
            Placement(stack=b.stack, block=b.index, method=method, size=size, n_params=METHODS[method].count(b, size))
            for b in backbone.blocks
        )
    )


def stir(model):
    """Values as large as training could make them: what starts at zero would test nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.peftsearch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def write_plainly(model, split, row):
    """Greedy without batch, padding and cache: the whole text is read anew for every token."""
    prompt = torch.tensor([split.prompts[row]])
    made = [] if split.start_id is None else [split.start_id]
    behind = len(made)
    for _ in range(split.max_new):
        if split.start_id is None:
            logits = model(input_ids=torch.cat((prompt, torch.tensor([made], dtype=torch.long)), 1)).logits
        else:
            logits = model(input_ids=prompt, decoder_input_ids=torch.tensor([made])).logits
        made.append(int(logits[0, -1].argmax()))
        if made[-1] == END:
            break
    return split.tokenizer.decode([t for t in made[behind:] if t != END], skip_special_tokens=True).strip()


@pytest.mark.parametrize(("prepared", "method"), CASES, indirect=["prepared"])
def test_cached_batches_write_what_a_plain_loop_writes(prepared, method):
    model, backbone, split = prepared
    model.config.use_cache = False  # as `load_backbone` leaves it
    own = model.generation_config
    untuned = generate(model, split, batch_size=3, device=CPU, autocast=None)
    with inject(model, uniform(backbone, method), backbone):
        stir(model)
        texts = generate(model, split, batch_size=3, device=CPU, autocast=None)
        assert texts == [write_plainly(model, split, rows[0]) for rows in split.groups]
    assert len(texts) == 3, "the repeated prompt is one example"
    assert len(set(texts)) > 1, "a model that always writes the same would hide a wrong prompt"
    assert method is None or texts != untuned, "a method without effect would hide that it is missing in a step"
    assert model.generation_config is own
    assert model.config.use_cache is False


def test_generation_uses_the_cache(prepared):
    """After the first step a causal model or a decoder reads one token, not the whole text."""
    model, _, split = prepared
    seen = []
    name = "input_ids" if split.start_id is None else "decoder_input_ids"
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs[name].shape[1]), with_kwargs=True
    )
    try:
        generate(model, split, batch_size=3, device=CPU, autocast=None)
    finally:
        handle.remove()
    assert len(seen) > 2
    assert set(seen[1:]) == {1}


def test_log_likelihoods_equal_a_loop_over_single_rows(prepared):
    model, _, split = prepared
    found, _ = log_likelihoods(model, split, batch_size=3, device=CPU, autocast=None)
    for row, value in enumerate(found):
        prompt, completion = split.prompts[row], split.completions[row]
        with torch.no_grad():
            if split.start_id is None:
                logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            else:
                before = torch.tensor([[split.start_id, *completion[:-1]]])
                logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=before).logits[0]
        plain = logits.log_softmax(-1)[range(len(completion)), completion].sum()
        assert value == pytest.approx(float(plain), abs=1e-4)


def test_log_likelihoods_equal_the_loss_of_transformers(prepared):
    """The mean over all tokens, from the library's own shift and mask."""
    model, _, split = prepared
    found, _ = log_likelihoods(model, split, batch_size=3, device=CPU, autocast=None)
    losses, tokens = [], [len(row) for row in split.completions]
    for prompt, completion in zip(split.prompts, split.completions, strict=True):
        if split.start_id is None:
            inputs = {"input_ids": [prompt + completion], "labels": [[-100] * len(prompt) + completion]}
        else:
            inputs = {"input_ids": [prompt], "labels": [completion]}
        with torch.no_grad():
            losses.append(float(model(**{k: torch.tensor(v) for k, v in inputs.items()}).loss))
    assert -sum(found) == pytest.approx(sum(x * n for x, n in zip(losses, tokens, strict=True)), rel=1e-4)


@pytest.mark.parametrize("prepared", ["llama", "bart"], indirect=True)
def test_decoding_samples_by_its_seed_searches_by_beams_and_stops(prepared):
    model, _, split = prepared

    def written(**how):
        return generate(model, split, batch_size=4, device=CPU, autocast=None, decoding=DecodingOptions(**how))

    greedy = written()
    state = torch.random.get_rng_state()
    assert written(temperature=1.0, generation_seed=1) == written(temperature=1.0, generation_seed=1)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's generator is as it was"
    assert written(temperature=1.0, generation_seed=1) != written(temperature=1.0, generation_seed=2)
    assert written(temperature=1e-4) == greedy
    assert written(beams=3) == written(beams=3)
    stop = next(text for text in greedy if len(text) > 2)[1]
    assert written(stop=stop) == [text.partition(stop)[0].strip() for text in greedy]
