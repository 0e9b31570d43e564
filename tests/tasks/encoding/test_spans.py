"""Answers as tokens and back: places, cuts, and the most probable span against a search over all of them."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from peftsearch.errors import TaskError
from peftsearch.tasks.encoding.spans import MOST_TOKENS, EncodedSpans, best_spans, encode_spans
from peftsearch.tasks.encoding.subset import at_most
from peftsearch.tasks.task import AnswerSplit

CONTEXT = "the inn is in the north , the mill in the south"
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "where", "is", "the", "inn", "in", "north", ",", "mill", "south"]


def reader(*, joins=False):
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if not joins:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


def split_of(*answers):
    spans = [[CONTEXT.rindex(a), CONTEXT.rindex(a) + len(a)] if a else [] for a in answers]
    n = len(answers)
    return AnswerSplit.of(["where is the mill"] * n, [CONTEXT] * n, spans, [[a] if a else [] for a in answers])


@pytest.mark.parametrize("joins", [False, True])
def test_marks_are_on_the_tokens_of_the_answer(joins):
    encoded = encode_spans(split_of("the south", "north", ""), reader(joins=joins), 64)
    for i, words in enumerate((["the", "south"], ["north"], None)):
        marked = [k for k, mark in enumerate(encoded.labels[i]) if mark]
        if words is None:
            assert encoded.labels[i] == [3] + [0] * 12
            continue
        ids = [encoded.input_ids[i][encoded.places[i][k]] for k in marked]
        assert [WORDS[t] for t in ids] == words
        assert [encoded.labels[i][k] for k in marked] == ([1, 2] if len(words) == 2 else [3])
    batch = encoded.collate([0, 1])
    assert batch["labels"].shape == (*batch["input_ids"].shape, 2)
    assert (batch["labels"] == 1).sum((1, 2)).tolist() == [2, 2]
    assert int((batch["labels"][0, :, 0] != -100).sum()) == 13, "twelve words and that of no answer"


@pytest.mark.parametrize("joins", [False, True])
def test_a_context_is_cut_and_an_answer_behind_the_cut_is_none(joins):
    encoded = encode_spans(split_of("south", "inn"), reader(joins=joins), 14)
    assert encoded.n_truncated == 2
    assert all(len(ids) == 14 for ids in encoded.input_ids)
    assert encoded.labels[0][0] == 3
    assert encoded.labels[1][0] == 0
    assert max(encoded.labels[1]) == 3


def test_a_question_without_room_for_its_context_is_refused():
    with pytest.raises(TaskError, match="has 4 tokens and leaves no room for its context in 7"):
        encode_spans(split_of("south"), reader(), 7)


def test_the_best_span_is_that_of_a_search_over_all():
    words = [f"w{k}" for k in range(40)]
    context = " ".join(words)
    ends = [(0, 0), *((context.index(w), context.index(w) + len(w)) for w in words)]
    encoded = EncodedSpans(
        input_ids=[[0] * 41] * 5, token_type_ids=None, labels=[[0] * 41] * 5, pad_id=0,
        places=[list(range(41))] * 5, spans=[ends] * 5, contexts=[context] * 5, references=[[]] * 5,
    )  # fmt: skip
    logits = torch.randn(5 * 41, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[4 * 41] = 9.0
    for i, found in enumerate(best_spans(logits, encoded)):
        own = logits[41 * i : 41 * (i + 1)].softmax(0)
        every = {(a, b): float(own[a, 0] * own[b, 1]) for a in range(1, 41) for b in range(a, min(41, a + MOST_TOKENS))}
        every[0, 0] = float(own[0, 0] * own[0, 1])
        (a, b), probability = max(every.items(), key=lambda item: item[1])
        assert found.text == ("" if a == 0 else context[ends[a][0] : ends[b][1]])
        assert found.start == (None if a == 0 else ends[a][0])
        assert found.probability == pytest.approx(probability)
    assert best_spans(logits, encoded)[4].text == ""


def test_the_space_before_a_word_is_no_part_of_an_answer():
    encoded = EncodedSpans(
        input_ids=[[0, 1]], token_type_ids=None, labels=[[0, 3]], pad_id=0, places=[[0, 1]], spans=[[(0, 0), (2, 6)]],
        contexts=["an inn"], references=[["inn"]],
    )  # fmt: skip
    (found,) = best_spans(torch.tensor([[0.0, 0.0], [5.0, 5.0]]), encoded)
    assert (found.text, found.start) == ("inn", 3)


def test_a_part_of_a_split_is_scored_as_a_split_of_its_own():
    encoded = encode_spans(split_of("the south", "north", ""), reader(), 64)
    part = at_most(encoded, 2)
    assert len(part) == 2
    kept = [encoded.references.index(own) for own in part.references]
    assert part.labels == [encoded.labels[i] for i in kept]


def test_a_tokenizer_that_cuts_beginnings_cuts_ends_here():
    tokenizer = reader()
    tokenizer.truncation_side = "left"
    assert encode_spans(split_of("south", "inn"), tokenizer, 14).labels[0][0] == 3
    assert tokenizer.truncation_side == "left"


def test_an_accent_behind_the_last_letter_belongs_to_the_answer():
    encoded = EncodedSpans(
        input_ids=[[0, 1]], token_type_ids=None, labels=[[0, 3]], pad_id=0, places=[[0, 1]], spans=[[(0, 0), (3, 7)]],
        contexts=["in cafe\u0301 b"], references=[["cafe\u0301"]],
    )  # fmt: skip
    (found,) = best_spans(torch.tensor([[0.0, 0.0], [5.0, 5.0]]), encoded)
    assert found.text == "cafe\u0301"
