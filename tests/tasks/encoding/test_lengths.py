"""The length that follows from the data: 99% of the training examples fit, within bounds."""

import pytest

from peftsearch.tasks.encoding.lengths import length_for
from peftsearch.tasks.task import ChatSplit, Split, Task, TokenSplit
from tests.runs import save_tokenizer
from tests.tasks.encoding.test_chats import CHAT, CHATML, tokenizer_of


def task_of(split, kind="classification"):
    labels = ("a", "b") if kind == "classification" else ()
    metric = "accuracy" if kind == "classification" else "log_likelihood"
    return Task(
        name="t", kind=kind, labels=labels, train=split, validation=split, test=None, metric=metric, source="here"
    )


def texts_of(*lengths):
    return Split(texts=["good " * n for n in lengths], pairs=None, labels=[0] * len(lengths))


@pytest.mark.parametrize(
    ("lengths", "limit", "wanted"),
    [
        ([30] * 99 + [400], None, 32),  # one in a hundred is cut
        ([30] * 98 + [400] * 2, None, 400),
        ([3] * 10, None, 16),
        ([2000] * 10, None, 512),
        ([300] * 10, 64, 64),
    ],
)
def test_it_is_the_quantile_within_its_bounds(tmp_path, lengths, limit, wanted):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path))
    assert length_for([task_of(texts_of(*lengths))], tokenizer, limit) == wanted


def test_tokens_chats_and_completions_count_whole():
    tokenizer = tokenizer_of(CHATML)
    ids = [[4] * n for n in (20, 40)]
    tokens = TokenSplit(texts=["x", "y"], pairs=None, labels=[0, 1], input_ids=ids, token_type_ids=None)
    assert length_for([task_of(tokens)], tokenizer, None) == 40
    n = len(tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=True)["input_ids"])
    assert length_for([task_of(ChatSplit.of([CHAT]), "generation")], tokenizer, None) == -(-n // 8) * 8
    pair = Split(texts=["good " * 20], pairs=["bad " * 12], labels=[0])
    assert length_for([task_of(pair, "generation")], tokenizer, None) == 40  # 32 words and the end token
