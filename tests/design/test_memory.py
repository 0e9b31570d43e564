"""The estimate against the printed table of OPT-1.3B, closed forms, and what is measured."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.backbone.anatomy import Weights
from peftsearch.backbone.detect import detect
from peftsearch.backbone.outline import read_outline
from peftsearch.backbone.packing import PACKINGS
from peftsearch.backbone.quantised import packing_tensors
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.memory import FLOATS, MemoryLimit, Step, blocks_passed, estimate, hidden_state_bytes
from peftsearch.design.memory import weight_bytes as bytes_of
from peftsearch.engine.measure import stored_bytes
from peftsearch.injection.inject import inject
from peftsearch.options import ModelOptions
from tests import quantised
from tests.anatomies import bert_like
from tests.engine.test_measure import meter_of
from tests.methods import available, make, place
from tests.tiny import TEXT_FAMILIES

MINILM = bert_like()
OPT = {
    "model_type": "opt", "architectures": ["OPTForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 24,
    "num_attention_heads": 32, "ffn_dim": 8192, "word_embed_proj_dim": 2048, "max_position_embeddings": 2048,
    "vocab_size": 50272,
}  # fmt: skip
"""The published config of facebook/opt-1.3b, as far as the sizes go."""


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opt-1.3b")
    (folder / "config.json").write_text(json.dumps(OPT))
    return read_outline(ModelOptions(name=str(folder)))


class TestPrintedTable:
    """OPT-1.3B at 16 bits, 512 tokens, one example; the table reckons with the 1.3 billion of the model's name."""

    STEP = Step(batch=1, seq=512, float_bytes=2)
    WEIGHTS = Weights(n_params=1_300_000_000)

    def column(self, opt, n_trained, weights=WEIGHTS):
        return estimate(weights, opt.backbone.blocks, self.STEP, n_trained=n_trained)

    def test_full_fine_tuning_to_its_rounding(self, opt):
        m = self.column(opt, self.WEIGHTS.n_params)
        cells = [m.context, m.weights, m.gradients, m.hidden_states, m.optimizer, m.total]
        assert [round(cell / 1e9, 1) for cell in cells] == [1, 2.6, 2.6, 1.0, 5.2, 12.4]

    def test_few_trained_to_its_rounding(self, opt):
        m = self.column(opt, 200_000)
        assert [round(cell / 1e9, 1) for cell in (m.context, m.weights, m.hidden_states, m.total)] == [1, 2.6, 1.0, 4.6]
        assert [round(cell / 1e6, 1) for cell in (m.gradients, m.optimizer)] == [0.4, 0.8]

    def test_the_copies_are_as_the_formula_has_them_and_not_as_printed(self, opt):
        """The source prints 10.2 GB and 1.6 MB, twice 4 N or nearly; its own total holds neither."""
        copies = [self.column(opt, n).fp32_copies for n in (1_300_000_000, 200_000)]
        assert [round(copies[0] / 1e9, 1), round(copies[1] / 1e6, 1)] == [5.2, 0.8]

    def test_the_real_count_differs_by_its_rounding(self, opt):
        """1,315,758,080 parameters: 1.2% more than the name says; the optimizer's cell is then 5.3 and not 5.2."""
        assert opt.backbone.n_params == 1_315_758_080
        assert opt.attention == "sdpa"
        m = self.column(opt, opt.backbone.n_params, Weights(n_params=opt.backbone.n_params))
        assert [round(c / 1e9, 2) for c in (m.weights, m.gradients, m.optimizer, m.total)] == [2.63, 2.63, 5.26, 12.57]

    def test_hidden_states_are_the_formula_by_hand(self, opt):
        assert self.column(opt, 1).hidden_states == 2 * 24 * (20 * 2048 * 512 + 3 * 512**2)


class TestParts:
    def test_attention_weights_of_one_of_none_and_of_all_heads(self):
        sizes = [
            hidden_state_bytes(MINILM.blocks, Step(batch=2, seq=100, attention=kind))
            for kind in ("documented", "fused", "eager")
        ]
        head = 4 * 2 * 6 * 3 * 100**2
        assert sizes == [sizes[1] + head, 4 * 2 * 6 * 20 * 384 * 100, sizes[1] + 12 * head]

    def test_a_block_that_layers_share_keeps_its_states_once_a_layer(self):
        shared = replace(MINILM.blocks[0], n_uses=6)
        assert hidden_state_bytes([shared], Step(batch=2, seq=100)) == hidden_state_bytes(
            MINILM.blocks, Step(batch=2, seq=100)
        )

    def test_packed_weights(self):
        weights = Weights(n_params=1000, maps=((32, 10), (32, 10)))
        assert bytes_of(weights, 4) == 4000
        assert bytes_of(weights, 2, "nf4") == 2 * 360 + 640 // 2 + 10 + 2 * 4 * (1 + 16 + 256 + 1)
        assert bytes_of(weights, 2, "int8") == 2 * 360 + 640 + 4 * 20

    def test_a_last_block_of_packed_weights_has_a_scale_too(self):
        assert bytes_of(Weights(n_params=65, maps=((65, 1),)), 4, "nf4") == 33 + 2 + 4 * (1 + 16 + 256 + 1)
        n = 64 * 256 + 64  # one scale more than share a scale
        assert bytes_of(Weights(n_params=n, maps=((n, 1),)), 4, "nf4") == n // 2 + 257 + 4 * (2 + 16 + 256 + 1)

    @pytest.mark.parametrize("family", quantised.CONFIGS)
    @pytest.mark.parametrize("how", PACKINGS)
    def test_they_are_those_of_the_loaded_model_to_the_byte(self, family, how):
        """The sizes are of storages, and a map's weight and its state may stand on the same one."""
        model = quantised.load(family, how).model
        held = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *packing_tensors(model))}
        assert bytes_of(read_outline(ModelOptions(name=quantised.folder(family).name)).weights, 4, how) == sum(
            held.values()
        )

    @pytest.mark.parametrize(("tuned", "passed"), [([], 0), ([5], 1), ([2, 4], 4), ([0], 6)])
    def test_gradients_pass_from_the_first_tuned_block_on(self, tuned, passed):
        placements = [Placement(stack="encoder", block=i, method="lora", size=1, n_params=1536) for i in tuned]
        assert len(blocks_passed(Architecture(placements=tuple(placements)), MINILM)) == passed

    def test_that_is_what_autograd_keeps(self):
        """Tuned in the last of four blocks alone, BERT keeps nothing of the first three."""
        model = make()
        backbone = detect(model)
        lora = place(backbone, lora=1)
        kept = []
        for blocks in ({3}, {1, 3}):
            some = Architecture(placements=tuple(p for p in lora.placements if p.block in blocks))
            with inject(model, some, backbone):
                measured = meter_of(model).measure(some, [0.1])["peak_memory_bytes"]
            states = 3 * 4 * (some.n_params + n_head(model, backbone))
            kept.append(measured - stored_bytes(model) - 4 * some.n_params - states)
        assert kept[1] > 2 * kept[0]

    def test_the_total_is_the_sum_without_the_copies(self):
        step = Step(batch=1, seq=8, float_bytes=2)
        m = estimate(Weights(n_params=100), (), step, n_trained=10, n_added=7)
        assert (m.weights, m.gradients, m.optimizer, m.fp32_copies) == (214, 20, 40, 40)
        assert m.total == 10**9 + 214 + 20 + 40

    def test_there_is_nothing_to_copy_at_32_bits(self):
        assert estimate(Weights(n_params=100), (), Step(batch=1, seq=8), n_trained=10).fp32_copies == 0


def n_head(model, backbone):
    return sum(p.numel() for path in backbone.head for p in model.get_submodule(path).parameters())


CASES = st.fixed_dictionaries(
    {
        "n_packed": st.integers(0, 10**9),
        "batch": st.integers(1, 512),
        "seq": st.integers(1, 4096),
        "n_trained": st.integers(0, 10**9),
        "blocks": st.integers(0, 5),
        "float_bytes": st.sampled_from(sorted(set(FLOATS.values()))),
        "attention": st.sampled_from(["documented", "fused", "eager"]),
    }
)


def total(case, quantize=None):
    step = Step(**{k: case[k] for k in ("batch", "seq", "float_bytes", "attention")})
    weights = Weights(n_params=10**9 + 10**6, maps=((100, case["n_packed"] // 100),))
    return estimate(
        weights, MINILM.blocks[: case["blocks"]], step, n_trained=case["n_trained"], quantize=quantize
    ).total


@settings(max_examples=40)
@given(CASES, st.sampled_from(["batch", "seq", "n_trained", "blocks"]))
def test_more_of_anything_never_takes_less(case, grown):
    assert total(case | {grown: case[grown] + 1}) >= total(case)
    assert total(case | {"float_bytes": 4}) >= total(case)
    assert total(case | {"attention": "eager"}) >= total(case) >= total(case | {"attention": "fused"})


@settings(max_examples=40)
@given(CASES.filter(lambda case: case["n_packed"] >= 10_000), st.sampled_from(sorted(PACKINGS)))
def test_packing_saves(case, quantize):
    assert total(case, quantize) < total(case)
    assert total(case, "nf4") < total(case, "int8")


class TestLimit:
    @given(st.integers(1, 10**10), st.integers(1, 10**9), st.integers(0, 10**5), st.integers(0, 10**6))
    def test_room_is_the_most_that_keeps_the_limit(self, limit, model_bytes, n_head, n_added):
        memory = MemoryLimit(limit=limit, model_bytes=model_bytes, n_head=n_head)
        assert memory.certain(memory.room) <= limit < memory.certain(memory.room + 1)
        assert (memory.obstacle(n_added) is None) == (memory.certain(n_added) <= limit)

    @pytest.mark.parametrize("family", TEXT_FAMILIES)
    @pytest.mark.parametrize("sizes", [{}, {"lora": 2}, {"prefix": 2, "adapter": 2, "lora": 2, "bitfit": 3}], ids=str)
    def test_nothing_is_refused_that_keeps_the_limit(self, family, sizes):
        """What is certain is below what is measured, and only by what autograd keeps."""
        model = make(family)
        backbone = detect(model)
        memory = MemoryLimit(limit=1, model_bytes=stored_bytes(model), n_head=n_head(model, backbone))
        architecture = place(backbone, **available(backbone, **sizes))
        with inject(model, architecture, backbone):
            measured = meter_of(model).measure(architecture, [0.1])["peak_memory_bytes"]
        assert 0 < measured - memory.certain(architecture.n_params) < 500_000

    def test_the_obstacle_names_both_amounts(self):
        memory = MemoryLimit(limit=90_000_000, model_bytes=90_863_000, n_head=770)
        assert memory.room < 0
        assert "1,000 parameters cannot be trained" in memory.obstacle(1000)
        assert "take 90.9 MB, --max-memory is 90 MB" in memory.obstacle(1000)
