"""Tokenise chats by the tokenizer's chat template; the loss covers the assistant's turns alone.

A template may mark what the assistant generates (`{% generation %}`). Where it does not, the turns are found by
rendering the chat up to each of them, with and without it, and it is checked that each of these texts begins the next
one. A turn ends with the template's end mark, which is learned too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.encoding.encoded import EncodedTask, encode_splits, pad_right, padded
from peftsearch.tasks.encoding.pairs import IGNORED, EncodedPairs, rows_by_prompt
from peftsearch.tasks.task import ChatSplit, Message, Split, Task

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
Span = tuple[int, int]
"""First character of an answer in a rendered chat, and the one behind its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedChats(EncodedPairs):
    """The token ids of one split of chats; `completions` are the learned tokens of each chat, of all answers."""

    chats: list[list[int]]
    """Token ids of each chat."""
    learned: list[list[bool]]
    """Whether each token is learned."""

    def collate(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Pad the chats at `indices` into one training batch.

        Returns:
            `input_ids`, `attention_mask` and `labels`, the next token where it is learned, `(batch, seq)`.
        """
        batch = padded([self.input_ids[i] for i in indices], self.pad_id)
        labels = [
            [token if learned else IGNORED for token, learned in zip(self.chats[i], self.learned[i], strict=True)][1:]
            for i in indices
        ]
        return batch | {"labels": pad_right(labels, IGNORED)}


def encode_chats(task: Task, tokenizer: Any, max_length: int, start_id: int | None) -> EncodedTask:
    """Tokenise every split of a task on chats.

    Args:
        task: The task.
        tokenizer: A fast tokenizer with a chat template and a padding token.
        max_length: Most tokens of a chat; a longer one is cut at its beginning.
        start_id: Start token of the decoder of a seq2seq model; None for a causal model.

    Raises:
        TaskError: The tokenizer has no chat template, the template fails, or the answers cannot be found in its text.
    """
    if start_id is not None:
        raise TaskError(
            f"task {task.name!r}: chats need a causal model; give one with --model, or prompts and completions"
        )
    train = task.train
    assert isinstance(train, ChatSplit), "a task on chats"
    lengths = [len(_ids(tokenizer, text)) for text in train.pairs or []]
    room = min(max(lengths) + 2, max(1, max_length // 2))

    def own(split: Split) -> EncodedChats:
        assert isinstance(split, ChatSplit), "all splits of a task on chats hold chats"
        return encode_chat_split(split, tokenizer, max_length, room)

    return encode_splits(task, own, "chats", max_length)


def encode_chat_split(split: ChatSplit, tokenizer: Any, max_length: int, room: int) -> EncodedChats:
    """Tokenise one split.

    Args:
        split: The chats.
        tokenizer: A fast tokenizer with a chat template.
        max_length: Most tokens of a chat.
        room: Most tokens to generate.

    Raises:
        TaskError: As for `encode_chats`.
    """
    require_template(tokenizer)
    end_id = end_of_turn(tokenizer)
    chats, learned, prompts, n_cut = [], [], [], 0
    for i, chat in enumerate(split.chats):
        ids, marks = tokens_of(chat, tokenizer, f"chat {i + 1}")
        n_cut += len(ids) > max_length
        chats.append(ids[-max_length:])
        learned.append(marks[-max_length:])
        before = _render(tokenizer, chat[:-1], f"chat {i + 1}", opens=True)
        prompts.append(_ids(tokenizer, before)[-(max_length - room) :])
    return EncodedChats(
        input_ids=[ids[:-1] for ids in chats],  # the last token is predicted, and not read
        token_type_ids=None,
        labels=split.labels,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id,
        n_truncated=n_cut,
        prompts=prompts,
        completions=[
            [token for token, mark in zip(ids[1:], marks[1:], strict=True) if mark]
            for ids, marks in zip(chats, learned, strict=True)
        ],
        groups=rows_by_prompt(split),
        references=[text.strip() for text in split.pairs or []],
        start_id=None,
        end_id=end_id,
        max_new=room,
        tokenizer=tokenizer,
        chats=chats,
        learned=learned,
    )


def require_template(tokenizer: Any) -> None:
    """Check that a tokenizer can render chats.

    Raises:
        TaskError: It has no chat template, or no offsets.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise TaskError(
            "the model's tokenizer has no chat template; give an instruction-tuned model, or columns of prompts and "
            "completions with --prompt-column and --completion-column"
        )
    if not tokenizer.is_fast:
        raise TaskError(
            "the model's tokenizer is a slow one, which has no offsets of its tokens; chats need a fast one"
        )


def tokens_of(chat: Sequence[Message], tokenizer: Any, where: str) -> tuple[list[int], list[bool]]:
    """Token ids of a chat, and whether each is learned: those that lie in an answer or its end mark.

    Raises:
        TaskError: The template fails, or the answers cannot be found in its text.
    """
    if _MARK.search(str(tokenizer.chat_template)):
        try:
            out = tokenizer.apply_chat_template(
                list(chat), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
        except Exception as error:  # templates raise what they want
            raise TaskError(_failed(where, error)) from error
        ids, marks = list(out["input_ids"]), [bool(mark) for mark in out["assistant_masks"]]
    else:
        text, spans = answers_of(chat, tokenizer, where)
        out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = list(out["input_ids"])
        marks = [any(a <= first < last <= b for a, b in spans) for first, last in out["offset_mapping"]]
    if not any(marks[1:]):
        raise TaskError(f"{where}: no token of an answer is left in the chat template's text")
    return ids, marks


def answers_of(chat: Sequence[Message], tokenizer: Any, where: str) -> tuple[str, list[Span]]:
    """The rendered text of a chat, and the spans of the answers with their end marks.

    Raises:
        TaskError: The template fails, or renders an earlier turn otherwise once others follow it.
    """
    whole = _render(tokenizer, chat, where)
    spans = []
    for i, message in enumerate(chat):
        if message["role"] != "assistant":
            continue
        upto = _render(tokenizer, chat[: i + 1], where)
        begun, opened = _render(tokenizer, chat[:i], where), _render(tokenizer, chat[:i], where, opens=True)
        start = len(opened) if upto.startswith(opened) else upto.find(message["content"].strip(), len(begun))
        if not whole.startswith(upto.rstrip()) or not upto.startswith(begun) or start < 0:
            raise TaskError(
                f"{where}: the chat template renders turn {i + 1} otherwise once others follow it, so that the answers "
                "cannot be told; mark them in the template with {% generation %}"
            )
        spans.append((start, len(upto.rstrip())))
    return whole, spans


def end_of_turn(tokenizer: Any) -> int:
    """The token that ends an answer: the template's end mark if it is one special token, or else the end of a text.

    Raises:
        TaskError: There is neither, or the template fails.
    """
    answer = "peftsearch"
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}]
    text = _render(tokenizer, chat, "the chat template")
    behind = _ids(tokenizer, text[text.rfind(answer) + len(answer) :].lstrip())
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    if behind and behind[0] in special:
        return behind[0]
    if tokenizer.eos_token_id is None:
        raise TaskError("tokenizer: it has no token that ends a text; set tokenizer.eos_token first")
    return int(tokenizer.eos_token_id)


def _render(tokenizer: Any, chat: Sequence[Message], where: str, opens: bool = False) -> str:
    """The text of a chat; with `opens` up to where an answer begins."""
    if not chat:
        return ""
    try:
        text: str = tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=opens)
    except Exception as error:  # templates raise what they want
        raise TaskError(_failed(where, error)) from error
    return text


def _failed(where: str, error: Exception) -> str:
    return f"{where}: the model's chat template refuses it: {one_line(error, 160)}; correct the row, or leave it out"


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
