"""Read chats: rows of messages with roles, as in `messages` (OpenAI's form) or `conversations` (ShareGPT's)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import ChatSplit, Message

CHAT_COLUMNS = ("messages", "conversations", "conversation", "chat")
"""Names of columns of chats to try, in this order."""
ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
}  # fmt: skip
"""Roles as data sets name them, and as chat templates do."""
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")


def chat_column(table: Table) -> str | None:
    """The column of chats of a table; None without one."""
    for name in CHAT_COLUMNS:
        values = table.columns.get(name, [])
        chats = sum(isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) for value in values)
        if chats > len(values) / 2:  # a faulty row among chats does not make them something else
            return name
    return None


def chats_of(table: Table, column: str) -> ChatSplit:
    """The chats of a column, each up to its last answer.

    Raises:
        TaskError: The column is missing, or a row is not a chat with an answer.
    """
    chats = []
    for where, messages in _chats(table, column):
        last = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=None)
        if last is None:
            raise TaskError(f"{where}: column {column!r} has no turn of the assistant; leave the row out")
        if last == 0:
            raise TaskError(f"{where}: column {column!r} has nothing before the assistant's turn; correct the row")
        chats.append(messages[: last + 1])
    return ChatSplit.of(chats)


def prompts_of_chats(table: Table, column: str) -> ChatSplit:
    """Chats to be answered: what comes before a final answer, which is left out where there is one.

    Raises:
        TaskError: The column is missing, or a row is not a chat.
    """
    chats = []
    for where, messages in _chats(table, column):
        asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
        if not asked:
            raise TaskError(f"{where}: column {column!r} has nothing to answer; correct the row")
        chats.append([*asked, {"role": "assistant", "content": ""}])
    return ChatSplit.of(chats)


def _chats(table: Table, column: str) -> Iterator[tuple[str, list[Message]]]:
    """The messages of every row, each with its place."""
    if column not in table.columns:
        raise TaskError(f"{table.where}: no column {column!r} of chats (columns: {', '.join(table.columns)})")
    for i, value in enumerate(table.columns[column]):
        yield table.at(i), _messages(table.at(i), column, value)


def _messages(where: str, column: str, value: object) -> list[Message]:
    if isinstance(value, str):  # CSV and Parquet files may hold them as JSON
        try:
            value = json.loads(value)
        except ValueError as error:
            raise TaskError(f"{where}: column {column!r} does not hold messages ({one_line(error, 60)})") from error
    if not isinstance(value, Sequence) or not value:
        raise TaskError(f"{where}: column {column!r} holds no list of messages; correct the row")
    found = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, Mapping):
            raise TaskError(f"{where}: message {number} is a {type(turn).__name__}; it needs a role and a content")
        role, content = _first(turn, _ROLE_KEYS), _first(turn, _CONTENT_KEYS)
        if str(role).lower() not in ROLES:
            known = ", ".join(ROLES)
            raise TaskError(f"{where}: message {number} has the role {one_line(role, 40)!r}; known are {known}")
        if not isinstance(content, str) or not content.strip():
            raise TaskError(f"{where}: message {number} has no text; fill it or leave the row out")
        found.append({"role": ROLES[str(role).lower()], "content": content})
    return found


def _first(turn: Mapping[str, object], keys: Sequence[str]) -> object:
    return next((turn[key] for key in keys if key in turn), None)
