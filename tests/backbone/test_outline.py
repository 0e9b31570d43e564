"""A config alone tells what the loaded model tells."""

import json

import pytest
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.backbone.outline import read_outline
from peftsearch.errors import BackboneError
from peftsearch.options import ModelOptions
from tests.tiny import TEXT_FAMILIES


@pytest.fixture
def config_of(tmp_path):
    def write(model):
        model.config.save_pretrained(tmp_path)
        return tmp_path

    return write


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_it_is_what_the_model_with_weights_is(family, config_of):
    model = TEXT_FAMILIES[family](num_labels=3)
    folder = config_of(model)
    outline = read_outline(ModelOptions(name=str(folder)))
    assert sorted(p.name for p in folder.iterdir()) == ["config.json"]
    assert outline.backbone == detect(model, str(folder))
    assert outline.weights.n_params == sum(p.numel() for p in model.parameters())
    blocks = [model.get_submodule(block.path) for block in outline.backbone.blocks]
    inside = [m for block in blocks for m in block.modules()]
    maps = [m for m in inside if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    assert outline.weights.n_packed == sum(m.weight.numel() for m in maps)
    assert sum(n for _, n in outline.weights.maps) == sum(m.nf if hasattr(m, "nf") else m.out_features for m in maps)
    assert outline.n_head == outline.weights.n_params - outline.backbone.n_params
    own_attention = family in ("deberta", "deberta-v2", "mpnet", "bloom")
    assert outline.attention == ("eager" if own_attention else "sdpa")
    assert outline.n_positions == (None if family in ("bloom", "t5") else 64)  # they have none but relative ones


def test_a_model_without_a_classification_head_is_read_bare(tmp_path):
    """transformers has no sequence classification for MarianMT."""
    sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99, "pad_token_id": 0}
    layers = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "marian", **sizes, **layers}))
    outline = read_outline(ModelOptions(name=str(tmp_path)))
    assert {s.name: len(s.blocks) for s in outline.backbone.stacks} == {"encoder": 2, "decoder": 3}
    assert outline.n_head == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no config.json"),
        ("{", "cannot be loaded"),
        ('{"model_type": "no-such-family"}', "cannot be loaded|no-such-family"),
        ('{"hidden_size": 32}', "cannot be loaded"),
        ('{"model_type": "bert", "hidden_size": 31, "num_attention_heads": 4}', "cannot be loaded"),
        ('{"model_type": "bert", "hidden_size": -32}', "cannot be loaded"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path, config, message):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(BackboneError, match=message):
        read_outline(ModelOptions(name=str(tmp_path)))
