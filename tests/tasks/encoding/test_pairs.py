"""Prompts and completions from files to batches: columns, template, groups, labels, cutting, and what is refused."""

import json

import pytest
import torch

from peftsearch.errors import TaskError
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.encoding.pairs import IGNORED
from peftsearch.tasks.reading.pairs import Template
from tests.generators import END, PAD, START, save_pairs, word_tokenizer
from tests.tasks import resolve_task

ROWS = [
    ("name w1", "w1 is in the north"),
    ("name w1", "the inn w1"),
    ("name w2 area south", "w2"),
    ("name w3", "w3 is"),
]


def write(path, rows, columns=("prompt", "completion")):
    path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return path


def read(tmp_path, rows=ROWS, columns=("prompt", "completion"), **more):
    train = write(tmp_path / "train.jsonl", rows, columns)
    return resolve_task(train=train, validation=train, **{"kind": "generation", **more})


@pytest.mark.parametrize(
    "columns", [("meaning_representation", "reference"), ("Input", "Output"), ("question", "answer")]
)
def test_columns_are_guessed_and_said(tmp_path, columns):
    task = read(tmp_path, columns=columns)
    assert (task.train.texts[0], task.train.pairs[0]) == ("name w1\n", "w1 is in the north")
    assert any(columns[0] in note and columns[1] in note for note in task.notes)
    assert (task.kind, task.metric, task.num_labels, task.labels) == ("generation", "log_likelihood", 0, ())


def test_a_named_column_makes_a_generation(tmp_path):
    task = read(tmp_path, columns=("q", "a"), kind=None, prompt_column="q", completion_column="a")
    assert task.kind == "generation"
    assert not any("guessed" in note for note in task.notes)


def test_csv_gives_the_same_task(tmp_path):
    (tmp_path / "train.csv").write_text("prompt,completion\n" + "".join(f"{p},{c}\n" for p, c in ROWS))
    of_csv = resolve_task(train=tmp_path / "train.csv", validation=tmp_path / "train.csv", kind="generation")
    assert of_csv.fingerprint == read(tmp_path).fingerprint


def test_the_template_is_part_of_the_task(tmp_path):
    task = read(tmp_path, template="Q: {prompt}\\nA: {completion}")
    assert (task.train.texts[0], task.train.pairs[0]) == ("Q: name w1\nA:", " w1 is in the north")
    assert task.fingerprint != read(tmp_path).fingerprint


@pytest.mark.parametrize(
    "text", ["{prompt}", "{completion} {prompt}", "{prompt} {prompt} {completion}", "{prompt} {completion}."]
)
def test_other_templates_are_refused(text):
    with pytest.raises(TaskError, match=r"must hold \{prompt\} once and end with \{completion\}"):
        Template.parse(text)


def test_split_off_keeps_the_references_of_a_prompt_together(tmp_path):
    train, _ = save_pairs(tmp_path)
    task = resolve_task(train=train, kind="generation")
    assert len(task.train) + len(task.validation) == 24
    assert len(task.validation) == 2 * len(set(task.validation.texts)) > 0
    assert not set(task.train.texts) & set(task.validation.texts)


def test_only_the_completion_is_learnt(tmp_path):
    tokenizer = word_tokenizer(seq2seq=False)
    split = encode(read(tmp_path), tokenizer, 32).train
    batch = split.collate([0, 2])
    first = [*tokenizer("w1 is in the north")["input_ids"], END]
    # The prompt has two tokens; what the second one predicts is the first of the completion.
    assert batch["labels"][0].tolist() == [IGNORED, *first]
    assert batch["input_ids"][0].tolist() == [*tokenizer("name w1")["input_ids"], *first[:-1]]
    assert batch["labels"][1].tolist() == [IGNORED] * 3 + [*tokenizer("w2")["input_ids"], END] + [IGNORED] * 2
    assert batch["attention_mask"][1].tolist() == [1] * 5 + [0] * 2
    assert split.groups == [[0, 1], [2], [3]]


def test_a_seq2seq_model_reads_the_prompt_in_its_encoder(tmp_path):
    tokenizer = word_tokenizer(seq2seq=True)
    batch = encode(read(tmp_path), tokenizer, 32, start_id=START).train.collate([0, 2])
    assert batch["input_ids"][0].tolist() == [*tokenizer("name w1")["input_ids"], PAD, PAD]
    assert batch["labels"][1].tolist() == [*tokenizer("w2")["input_ids"], *[IGNORED] * 4]
    assert batch["decoder_input_ids"][1].tolist() == [START, tokenizer("w2")["input_ids"][0], *[PAD] * 4]


def test_prompts_to_go_on_from_end_at_one_place(tmp_path):
    split = encode(read(tmp_path), word_tokenizer(seq2seq=False), 32).train
    batch = split.collate_prompts([0, 2])
    assert batch["input_ids"][0, :2].tolist() == [PAD, PAD]
    assert torch.equal(batch["attention_mask"], torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]))


def test_nothing_is_longer_than_the_maximum_and_it_is_said(tmp_path):
    rows = [("w1 " * 30 + "north", "w2 " * 5), ("w3", "w4 " * 20)]
    encoded = encode(read(tmp_path, rows), word_tokenizer(seq2seq=False), 12)
    split = encoded.train
    assert max(map(len, split.prompts)) + split.max_new <= 12
    assert max(len(p) + len(c) for p, c in zip(split.prompts, split.completions, strict=True)) == 12
    assert split.prompts[0][-1] == word_tokenizer(seq2seq=False)("north")["input_ids"][0], "the end of a prompt counts"
    assert encoded.notes[0] == "2 of 2 rows of train are longer than 12 tokens and were cut"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rows": [("a", "b"), ("a", "")]}, "line 2: empty text in column 'completion'"),
        ({"rows": [("a", "b"), ("", "b")]}, "line 2: empty text in column 'prompt'"),
        ({"columns": ("x", "y")}, "name them with --prompt-column and --completion-column"),
        ({"prompt_column": "promt"}, "no column 'promt'; did you mean 'prompt'"),
        ({"prompt_column": "prompt", "completion_column": "prompt"}, "must be different columns"),
        ({"text_column": "prompt"}, "text_column is not for generation"),
        ({"metric": "accuracy"}, "choose one of: log_likelihood, bleu, rouge_l"),
        ({"kind": "regression", "template": "{prompt}{completion}"}, "template is for kind generation"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(tmp_path, more, message):
    with pytest.raises(TaskError, match=message.replace("(", r"\(")):
        read(tmp_path, **more)


def test_a_generation_needs_files():
    with pytest.raises(TaskError, match="give --train FILE"):
        resolve_task("sentiment", kind="generation")
