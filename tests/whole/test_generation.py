"""`peftsearch run` on a generation from end to end, the verdict against the frozen model, what is refused; GGUF."""

import math

import pytest
import torch
import transformers
import yaml

from peftsearch.backbone.load import load_backbone
from peftsearch.design.architecture import Architecture
from peftsearch.engine.generation import log_likelihoods
from peftsearch.searcher.verdict import Rules, judge
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.hits import hits_of, packed_hits
from peftsearch.tasks.encoding.encode import encode
from peftsearch.units import Scores
from tests.generators import SPECIALS, build, generate_arguments, save_generator
from tests.runs import call, refused, save_model, study
from tests.tasks import resolve_task


@pytest.fixture(scope="module")
def finished(llama, pairs, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    assert call(*generate_arguments(llama, pairs, runs, "--test", str(pairs[1]))) == 0
    return runs / "r"


def test_the_frozen_model_is_a_baseline_and_the_measure_of_the_result(finished, llama, pairs):
    best = yaml.safe_load((finished / "best.yaml").read_text())
    frozen = next(row for row in best["comparison"] if row["name"] == "frozen")
    assert frozen["n_params"] == 0
    loaded = load_backbone(llama, num_labels=0, problem_type="generation")
    task = resolve_task(train=pairs[0], validation=pairs[1], kind="generation")
    split = encode(task, loaded.tokenizer, 64).validation
    sums, _ = log_likelihoods(loaded.model, split, batch_size=4, device=torch.device("cpu"), autocast=None)
    score = sum(sums) / sum(len(row) for row in split.completions)
    assert frozen["search_score"] == pytest.approx(score, abs=1e-5)
    assert best["scores"]["frozen_model"] == pytest.approx(score, abs=1e-5)
    assert best["task"]["majority_score"] is None


def test_perplexities_stand_beside_the_scores(finished):
    scores = yaml.safe_load((finished / "best.yaml").read_text())["scores"]
    for split in ("validation", "test"):
        assert scores["perplexity"][split] == pytest.approx(math.exp(-scores[split]["mean"]))


def test_every_design_tunes_within_the_budget_and_no_head(finished):
    best = yaml.safe_load((finished / "best.yaml").read_text())
    assert Architecture.from_dict(best["architecture"]).n_params <= best["budget"]["n_params"]
    trials = study(finished).trials + study(finished, "confirm").trials
    assert {t.user_attrs["n_head"] for t in trials} == {0}
    for t in study(finished, "confirm").trials:
        assert sum(hits_of([t.user_attrs["right"]])) / 8 == pytest.approx(t.value, abs=1e-5)


def test_a_seq2seq_model_is_searched_by_bleu(pairs, tmp_path):
    model = save_generator(tmp_path / "bart", "bart")
    more = ["--metric", "bleu", "--trials", "1", "--seeds", "1", "--steps", "2", "--confirm-baselines", "1"]
    assert call(*generate_arguments(model, pairs, tmp_path, *more)) == 0
    best = yaml.safe_load((tmp_path / "r" / "best.yaml").read_text())
    assert (best["task"]["metric"], set(best["model"]["stacks"])) == ("bleu", {"encoder", "decoder"})
    assert all(0 <= row["search_score"] <= 1 for row in best["comparison"] if row["search_score"] is not None)


class TestVerdict:
    def frozen(self, *hits):
        return Confirmed(
            name="frozen model", baseline=True, n_params=0, test=Scores((sum(hits) / len(hits),)), hits=hits
        )

    def design(self, *hits, scores=None):
        mean = sum(hits) / len(hits)
        own = Scores(scores or (mean, mean))
        return Confirmed(name="lora", baseline=True, n_params=9, validation=own, test=own, hits=hits)

    def judge(self, candidates, frozen):
        return judge(candidates, Rules(metric="log_likelihood", n_examples=4, n_steps=10, frozen=frozen))

    def test_a_clear_gain_on_every_example_is_a_signal_though_scores_are_negative(self):
        verdict = self.judge([self.design(-2.0, -3.1, -4.0, -5.1)], self.frozen(-4.0, -5.0, -6.1, -7.0))
        assert verdict.kind != "no_signal"

    def test_a_gain_that_hangs_on_one_example_is_none(self):
        verdict = self.judge([self.design(-1.0, -5.1, -6.2, -7.1)], self.frozen(-4.0, -5.0, -6.1, -7.0))
        assert verdict.kind == "no_signal"
        assert "does not exceed the frozen model (-5.5250)" in verdict.statement

    def test_the_frozen_model_itself_is_no_signal(self):
        frozen = self.frozen(-4.0, -5.0, -6.1, -7.0)
        assert self.judge([self.design(-4.0, -5.0, -6.1, -7.0)], frozen).kind == "no_signal"

    def test_scores_of_examples_survive_the_storage(self):
        rows = [packed_hits([[-1.5, -0.25, 0.0]]), packed_hits([[-0.5, -0.75, 1.0]])]
        assert hits_of(rows) == (-1.0, -0.5, 0.5)
        assert hits_of(["011", packed_hits([[True, True, False]])]) == (0.5, 1.0, 0.5)


class TestRefused:
    def test_an_encoder(self, pairs, tmp_path, capsys):
        model = save_model(tmp_path / "bert")
        capsys.readouterr()  # the bar of the writing
        line = refused(capsys, *generate_arguments(model, pairs, tmp_path))
        assert "bert is an encoder and cannot generate" in line

    def test_a_classifier_without_its_output_map(self, pairs, tmp_path, capsys):
        model = save_model(tmp_path / "llama", "llama")
        capsys.readouterr()
        line = refused(capsys, *generate_arguments(model, pairs, tmp_path))
        assert "first: lm_head.weight" in line
        assert "the model to the task" in line

    def test_rows_without_completions(self, llama, tmp_path, capsys):
        bad = tmp_path / "bad.jsonl"
        bad.write_text('{"prompt": "name w1", "completion": "w1"}\n{"prompt": "name w2"}\n')
        line = refused(capsys, *generate_arguments(llama, (bad, bad), tmp_path))
        assert "line 2: empty text in column 'completion' (1 of 2 rows are faulty)" in line
        assert not (tmp_path / "r").exists()

    def test_two_gguf_files(self, pairs, tmp_path, capsys):
        folder = tmp_path / "weights"
        folder.mkdir()
        for name in ("a.gguf", "b.gguf"):
            (folder / name).write_bytes(b"GGUF")
        assert "holds 2 GGUF files; name one" in refused(capsys, *generate_arguments(folder, pairs, tmp_path))
        line = refused(capsys, *generate_arguments(folder / "a.gguf", pairs, tmp_path))
        assert "cannot be loaded" in line


def test_gguf_gives_the_model_that_was_written(tmp_path):
    """Float weights of a tiny Llama through the `gguf` package's own writer and back."""
    gguf = pytest.importorskip("gguf")
    model = build("llama")
    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(
        [*SPECIALS[:3], "<|endoftext|>", "a", "b", "ab", *(f"t{i}" for i in range(config.vocab_size - 7))]
    )
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types([3 if i < 4 else 1 for i in range(config.vocab_size)])  # 3 is a control token
    writer.add_token_merges(["a b"])
    for name, key in (("pad", 0), ("bos", 1), ("eos", 2), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(key)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in state.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # GGUF pairs the rotary halves line by line
            n = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            value = value.reshape(n, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = load_backbone(tmp_path / "tiny.gguf", num_labels=0, problem_type="generation")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, model(ids).logits, atol=1e-5)
    assert loaded.backbone.head == ()
    assert loaded.backbone.revision.startswith("sha256:")
    assert loaded.backbone.n_params == sum(p.numel() for p in model.parameters())
    loaded.model.save_pretrained(tmp_path / "plain")  # as a merged export or full fine-tuning does
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    with torch.no_grad():
        assert torch.allclose(again(ids).logits, model(ids).logits, atol=1e-5)


def test_chats_are_searched_trained_scored_and_answered(tmp_path, capsys):
    """The tiny model of the other tests, with a chat template."""
    import json

    from transformers import AutoTokenizer

    from tests.tasks.encoding.test_chats import CHATML

    model = save_generator(tmp_path / "llama", "llama")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(model)
    for name in ("train", "validation"):
        chats = [
            [{"role": "user", "content": f"name {i} red"}, {"role": "assistant", "content": "the red one"}]
            for i in range(12)
        ]
        lines = [json.dumps({"messages": chat}) for chat in chats]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = [tmp_path / "train.jsonl", tmp_path / "validation.jsonl"]
    more = ["--trials", "1", "--seeds", "1", "--steps", "2", "--confirm-baselines", "1"]
    words = [w for w in generate_arguments(model, files, tmp_path, *more) if w not in ("--kind", "generation")]
    assert call(*words) == 0
    best = yaml.safe_load((tmp_path / "r" / "best.yaml").read_text())
    assert best["task"]["kind"] == "generation"
    name = next(row["name"] for row in best["comparison"] if row["n_params"] and row["validation"])
    out = tmp_path / "trained"
    assert call("train", tmp_path / "r", "--design", name, "--output", out, "--steps", "2") == 0
    assert call("evaluate", out, "--metric", "perplexity", "--json") == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["score"] < 0
    assert call("predict", out, "--input", files[1], "--output", tmp_path / "answers.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert all("predicted_text" in row for row in rows)
