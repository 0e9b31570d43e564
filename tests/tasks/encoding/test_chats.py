"""Chats by the templates of five families: which tokens are learned, one by one, and what cannot be rendered."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from peftsearch.errors import TaskError
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.chats import encode_chat_split, encode_chats, end_of_turn, tokens_of
from peftsearch.tasks.encoding.pairs import IGNORED
from peftsearch.tasks.task import ChatSplit

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nbe kind<|im_end|>\n' }}{% endif %}" + CHATML
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ 'gone' }}{% else %}{{ m['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ENDS = {
    CHATML: "<|im_end|>", QWEN: "<|im_end|>", LLAMA: "<|eot_id|>", MISTRAL: "</s>", GEMMA: "<end_of_turn>",
    MARKED: "<|im_end|>",
}  # fmt: skip
NAMES = ["chatml", "qwen", "llama", "mistral", "gemma", "marked"]
SPECIALS = [
    "<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>",
]  # fmt: skip
WORDS = [
    "user", "assistant", "model", "system", "be", "kind", "hello", "there", "how", "is", "the", "film", "it", "was",
    "good", "and", "plot", "bad", "gone",
]  # fmt: skip
CHAT = [
    {"role": "user", "content": "how is the film"},
    {"role": "assistant", "content": "it was good"},
    {"role": "user", "content": "and the plot"},
    {"role": "assistant", "content": "bad bad"},
]


def tokenizer_of(template):
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIALS, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=SPECIALS[4:],
    )  # fmt: skip
    made.chat_template = template
    return made


@pytest.mark.parametrize("template", ENDS, ids=NAMES)
def test_the_answers_and_their_end_marks_are_learned_and_nothing_else(template):
    tokenizer = tokenizer_of(template)
    ids, learned = tokens_of(CHAT, tokenizer, "here")
    end = ENDS[template]
    wanted = ["it", "was", "good", end, "bad", "bad", end]
    assert tokenizer.convert_ids_to_tokens([i for i, mark in zip(ids, learned, strict=True) if mark]) == wanted
    whole = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=True)["input_ids"]
    assert ids == whole
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == end


def test_a_batch_predicts_the_learned_tokens_and_generation_begins_after_the_last_question():
    tokenizer = tokenizer_of(CHATML)
    split = ChatSplit.of([CHAT, CHAT[:2]])
    encoded = encode_chat_split(split, tokenizer, 64, 8)
    batch = encoded.collate([0, 1])
    assert batch["input_ids"].shape == batch["labels"].shape
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        ids, labels = encoded.chats[row], batch["labels"][row]
        for at in range(length):
            assert labels[at] in (IGNORED, ids[at + 1])
        assert (labels[:length] != IGNORED).sum() == len(encoded.completions[row]) == sum(encoded.learned[row])
        assert bool((labels[length:] == IGNORED).all())
    prompt = tokenizer.decode(encoded.prompts[0]).split()
    assert prompt[-2:] == ["<|im_start|>", "assistant"]
    assert "bad" not in prompt
    assert encoded.groups == [[0], [1]]
    assert torch.equal(encoded.collate([1])["labels"], batch["labels"][1:, : len(encoded.input_ids[1])])


def test_a_long_chat_keeps_its_end():
    tokenizer = tokenizer_of(CHATML)
    ids, _ = tokens_of(CHAT, tokenizer, "here")
    encoded = encode_chat_split(ChatSplit.of([CHAT]), tokenizer, 10, 4)
    assert encoded.chats[0] == ids[-10:]
    assert encoded.n_truncated == 1
    assert len(encoded.prompts[0]) == 6


@pytest.mark.parametrize(
    ("template", "chat", "told"),
    [
        (FORGETFUL, CHAT, "renders turn 2 otherwise once others follow"),
        (GEMMA, [{"role": "system", "content": "be kind"}, *CHAT], "refuses it: System role not supported"),
        (None, CHAT, "has no chat template"),
        ("{{ messages[9].content }}", CHAT, "refuses it"),
    ],
)
def test_what_cannot_be_rendered_is_told_in_one_line(template, chat, told):
    with pytest.raises(TaskError, match=told) as caught:
        encode_chat_split(ChatSplit.of([chat]), tokenizer_of(template), 64, 8)
    assert "\n" not in str(caught.value)


ROWS = {
    "messages": '{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good"}]}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "good"}, '
    '{"from": "human", "value": "there"}]}',
}


@pytest.mark.parametrize("form", ROWS)
def test_files_of_chats_are_read_without_being_told(tmp_path, form):
    (tmp_path / "train.jsonl").write_text("\n".join([ROWS[form], ROWS[form].replace("hello", "how is the film")] * 3))
    task = resolve_task(TaskOptions(train=tmp_path / "train.jsonl", validation=tmp_path / "train.jsonl"))
    assert task.kind == "generation"
    assert isinstance(task.train, ChatSplit)
    assert task.train.chats[0] == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good"}]
    encoded = encode_chats(task, tokenizer_of(LLAMA), 64, None)
    assert encoded.train.references[0] == "good"
    with pytest.raises(TaskError, match="causal model"):
        encode_chats(task, tokenizer_of(LLAMA), 64, 0)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"messages": [{"role": "user", "content": "hello"}]}', "no turn of the assistant"),
        ('{"messages": [{"role": "assistant", "content": "hello"}]}', "has nothing before the assistant"),
        ('{"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "a"}]}', "1 has no text"),
        ('{"messages": [{"role": "wizard", "content": "a"}]}', "role 'wizard'; known are"),
        ('{"messages": ["hello"]}', "cannot tell"),
    ],
)
def test_rows_that_are_no_chats_are_told_with_their_line(tmp_path, row, told):
    (tmp_path / "train.jsonl").write_text(row + "\n")
    with pytest.raises(TaskError, match=told):
        resolve_task(TaskOptions(train=tmp_path / "train.jsonl", validation=tmp_path / "train.jsonl"))
