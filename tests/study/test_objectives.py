"""Objectives and limits: what is read, what is refused, and what the limits say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.errors import ConfigError
from peftsearch.study.objectives import (
    MEASURES,
    OBJECTIVES,
    Constraints,
    parse_constraints,
    parse_memory,
    parse_objectives,
    parse_overhead,
    values_of,
)
from peftsearch.units import show_bytes, show_flops, show_seconds

COSTS = sorted(set(OBJECTIVES) - {"score"})
FACTORS = {
    "B": 1, "kB": 1000, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4,
}  # fmt: skip
MEASURED = dict.fromkeys(MEASURES, 1.0) | {"merged_latency_s": 0.012, "backbone_latency_s": 0.010}


class TestObjectives:
    @given(st.permutations(COSTS).flatmap(lambda names: st.integers(0, len(names)).map(lambda n: names[:n])), st.data())
    def test_any_subset_with_the_score_is_read_in_its_order(self, costs, data):
        names = list(costs)
        names.insert(data.draw(st.integers(0, len(names))), "score")
        assert [o.name for o in parse_objectives(data.draw(st.sampled_from([",", ", "])).join(names))] == names

    def test_the_score_alone_is_maximised(self):
        assert [o.name for o in OBJECTIVES.values() if o.direction == "maximize"] == ["score"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("score,latencyy", "unknown objective 'latencyy'; did you mean 'latency'"),
            ("score,params,params", "names 'params' twice"),
            ("score,,params", "contains an empty name"),
            ("", "contains an empty name"),
            ("params,disk", "lacks the score, which every search needs: --objective score,params,disk"),
        ],
    )
    def test_refused(self, text, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            parse_objectives(text)

    @given(st.text(max_size=30), st.sampled_from([parse_objectives, parse_memory, parse_overhead]))
    def test_any_text_is_read_or_refused_in_one_line(self, text, parse):
        try:
            parse(text)
        except ConfigError as error:
            lines = str(error).splitlines()
        else:
            lines = [""]
        assert len(lines) == 1

    def test_values_come_in_the_order_of_the_objectives(self):
        measures = {key: float(i) for i, key in enumerate(MEASURES)}
        objectives = parse_objectives("disk,score,memory")
        assert values_of(0.5, measures, objectives) == [measures["disk_bytes"], 0.5, measures["peak_memory_bytes"]]

    def test_shown_with_units(self):
        assert [show_bytes(v) for v in (0, 999, 96_904, 8e9, 2e13)] == ["0 B", "999 B", "96.9 kB", "8 GB", "20 TB"]
        assert [show_flops(v) for v in (12, 5.37e9)] == ["12 FLOP", "5.37 GFLOP"]
        assert show_seconds(0.0123) == "12.3 ms"
        assert OBJECTIVES["score"].show(0.5) == "0.5000"
        assert OBJECTIVES["params"].show(22666) == "22,666"


class TestMemory:
    @given(
        st.integers(1, 10**6),
        st.sampled_from(list(FACTORS.items())),
        st.sampled_from([str.upper, str.lower, str]),
        st.sampled_from(["", " "]),
    )
    def test_numbers_with_units(self, n, unit, case, space):
        name, factor = unit
        assert parse_memory(f"{n}{space}{case(name)}") == n * factor

    @given(st.integers(0, 10**6), st.integers(0, 999))
    def test_fractions_are_exact_and_rounded_down(self, whole, thousandths):
        text = f"{whole}.{thousandths:03}kB"
        if whole or thousandths:
            assert parse_memory(text) == 1000 * whole + thousandths
        assert parse_memory(f"{whole}.9999kB") == 1000 * whole + 999

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("8", "the unit is missing; write a number and a unit such as 8GB"),
            ("8GX", "unknown unit 'GX'"),
            ("8%", "unknown unit '%'"),
            ("-8GB", "is not an amount of memory"),
            ("eight", "is not an amount of memory"),
            ("nanGB", "is not an amount of memory"),
            ("0GB", "at least one byte"),
            ("9" * 99 + "GB", "is not an amount of memory"),
        ],
    )
    def test_refused(self, text, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            parse_memory(text)


class TestOverhead:
    @given(st.integers(0, 10**6), st.integers(0, 99))
    def test_percentages(self, whole, hundredths):
        assert parse_overhead(f"{whole}.{hundredths:02}%") == (100 * whole + hundredths) / 10_000

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0.1", "did you mean 10% or 0.1%?"),
            ("10", "did you mean 1000% or 10%?"),
            ("10ms", "write a percentage such as 10%"),
            ("-5%", "is not an overhead"),
            ("inf%", "is not an overhead"),
        ],
    )
    def test_refused(self, text, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            parse_overhead(text)


class TestConstraints:
    def test_none_are_none(self):
        constraints = parse_constraints(None, None)
        assert constraints.violations({}) == []
        assert constraints.values({}) == {}
        assert constraints.to_dict() == {}

    def test_what_is_exceeded_is_said_with_its_limit(self):
        constraints = parse_constraints("8GB", "10%")
        texts = constraints.violations(MEASURED | {"peak_memory_bytes": 9.5e9})
        assert texts == [
            "peak memory 9.5 GB exceeds 8 GB",
            "latency 12 ms exceeds 11 ms (10% over the backbone's 10 ms)",
        ]
        assert constraints.to_dict() == {"max_memory_bytes": 8 * 10**9, "max_latency_overhead": 0.1}

    def test_values_are_relative(self):
        constraints = parse_constraints("8GB", "50%")
        assert constraints.values(MEASURED | {"peak_memory_bytes": 4e9}) == pytest.approx(
            {"peak memory": -0.5, "latency": -0.2}
        )

    def test_no_overhead_at_all(self):
        """A limit of 0% is a limit, and what stays below the backbone's latency keeps it."""
        constraints = parse_constraints(None, "0%")
        assert constraints.violations(MEASURED) != []
        assert constraints.violations(MEASURED | {"merged_latency_s": 0.010}) == []

    @given(st.floats(1, 1e12), st.floats(1e-6, 10), st.integers(1, 10**12), st.floats(0, 10))
    def test_values_above_zero_are_the_violations(self, memory, latency, limit, overhead):
        measures = MEASURED | {"peak_memory_bytes": memory, "merged_latency_s": latency}
        constraints = Constraints(max_memory_bytes=limit, max_latency_overhead=overhead)
        assert sum(value > 0 for value in constraints.values(measures).values()) == len(
            constraints.violations(measures)
        )
