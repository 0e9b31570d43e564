"""Search spaces: the possible designs, as named dimensions of choices (arXiv 2301.01821, sec. 3 and 4).

A space is data (a YAML in `search_spaces/`). Its dimensions, in the order in which the S4 procedure decides them,
are: `grouping`, `allocation`, `tunable` (which groups are trained), `methods.G1` ... and, where the space has them,
`budget_share` (the part of the budget that a design spends) and `learning_rate`. A space with `ranks` has `rank.G1` ...
instead of allocation and tunable groups: relative sizes, which `fit` scales to the budget (0:1:2:4 with any budget
means twice and four times the rank of G2 in G3 and G4).

A YAML with a `kind` is a space of another class (`KINDS`). A user's own space is a YAML path, or
`package.module:Object` with the interface of `DesignSpace`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import comb, gcd
from typing import Any, Protocol

from peftsearch.catalog import load_entry, load_object
from peftsearch.design.design import Design
from peftsearch.design.grouping import GROUPINGS, distinct_groupings
from peftsearch.design.neighbours import next_values, subsets, toggled
from peftsearch.design.variants import read_variants
from peftsearch.errors import ConfigError, one_line, unknown_name
from peftsearch.fields import Fields, above, at_least, list_of, one_of
from peftsearch.methods import METHODS

Choice = str | float
ALLOCATIONS = ("increasing", "uniform", "decreasing")
KINDS = {"groups": "peftsearch.design.space:SearchSpace", "autopeft": "peftsearch.design.autopeft_space:AutoPeftSpace"}
"""Classes of spaces by the `kind` of their YAML; a YAML without a kind has the kind `groups`."""
_MOST_SUBSETS = 4095
"""Most sets of methods that a group may choose from, which is the number for 12 methods."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """One choice that a design makes."""

    name: str
    """`grouping`, `methods.G1`, ..."""
    choices: tuple[Choice, ...]
    """Possible choices: texts, or numbers for a learning rate or a share of the budget."""


class DesignSpace(Protocol):
    """The interface of a space for the samplers and the search.

    A space may also have `methods` (the names that it uses) and `smallest_points()` (points that include its cheapest
    design); without the latter the cheapest design is found by descent over the dimensions.
    """

    @property
    def name(self) -> str:
        """Name of the space in messages."""

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The choices, in the order in which a staged search decides them."""

    @property
    def n_designs(self) -> int:
        """Number of different designs."""

    def design(self, params: Mapping[str, Any]) -> Design:
        """The design at a point: one choice for every dimension."""

    def params(self, design: Design) -> dict[str, Choice] | None:
        """The point of a design: one choice for every dimension; None when the space does not contain the design."""

    def neighbours(self, params: Mapping[str, Any]) -> list[dict[str, Choice]]:
        """Points of the other designs that are one elementary change away, each design once.

        Symmetric: if b is a neighbour of a, a is a neighbour of b.
        """

    def bound_to(self, n_blocks: int, methods: tuple[str, ...]) -> DesignSpace:
        """The space on one backbone: without duplicate groupings and without methods that cannot act on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """A space of the S4 kind, read from YAML."""

    name: str
    description: str
    """One line for `peftsearch list spaces`."""
    groups: int
    """Number of groups that the blocks fall into."""
    groupings: tuple[str, ...]
    methods: tuple[str, ...]
    """Methods, of which every non-empty subset of at most `max_methods` is a choice for each tunable group."""
    allocations: tuple[str, ...] = ()
    """Patterns of the budget over the groups; empty in a space with `ranks`."""
    tunable: str = "any"
    """`any`: every non-empty subset of the groups may be trained; `all`: all groups are trained."""
    ranks: tuple[int, ...] = ()
    """Relative sizes that a group may take (0 leaves it untuned); a space with ranks has exactly one method."""
    learning_rates: tuple[float, ...] = ()
    """Base learning rates to choose from; empty leaves it to the training settings."""
    max_methods: int | None = None
    """Most methods that one group combines; None means no limit."""
    budget_shares: tuple[float, ...] = ()
    """Shares of the budget that a design may spend; empty lets every design spend all of it."""
    leave_out: bool = False
    """Whether a mix whose smallest sizes exceed the budget leaves blocks out, from the input side."""

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> SearchSpace:
        """Read a space.

        Raises:
            ConfigError: The mapping has faults; lists all of them.
        """
        fields = Fields(f"space {name}", data)
        methods = fields.take("methods", (list, str), [], _all_or_list)
        variants = read_variants(name, fields.take("variants", dict, {}))
        space = cls(
            name=name,
            description=fields.take("description", str, ""),
            groups=fields.take("groups", int, 4, at_least(1)),
            groupings=tuple(fields.take("groupings", list, list(GROUPINGS), list_of(str, one_of(GROUPINGS)))),
            methods=tuple(METHODS) if methods == "all" else tuple(variants.get(m, m) for m in methods),
            allocations=tuple(fields.take("allocations", list, [], list_of(str, one_of(ALLOCATIONS)))),
            tunable=fields.take("tunable_groups", str, "any", one_of(("any", "all"))),
            ranks=tuple(fields.take("ranks", list, [], list_of(int, at_least(0)))),
            learning_rates=tuple(map(float, fields.take("learning_rates", list, [], list_of(float, above(0))))),
            max_methods=fields.take("max_methods_per_group", int, None, at_least(1)),
            budget_shares=tuple(map(float, fields.take("budget_shares", list, [], list_of(float, _share)))),
            leave_out=fields.take("leave_out_blocks", bool, False),
        )
        if unused := [alias for alias in variants if methods == "all" or alias not in methods]:
            fields.fault(f"'variants' holds {', '.join(unused)}, which 'methods' does not name")
        if len(set(space.methods)) < len(space.methods):
            fields.fault("'methods' holds a method twice, once as a variant")
        if not space.methods:
            fields.fault("'methods' is missing")
        if bool(space.ranks) == bool(space.allocations):
            fields.fault("needs either 'allocations' or 'ranks'")
        if space.ranks and (len(space.methods) != 1 or not any(space.ranks)):
            fields.fault("'ranks' needs exactly one method and a value above 0")
        if space.groups > 8 or space.n_subsets > _MOST_SUBSETS or len(space.ranks) ** space.groups > 100_000:
            fields.fault(
                f"is too large: at most 8 groups, {_MOST_SUBSETS:,} sets of methods (12 methods; with more, set "
                "'max_methods_per_group') and 100,000 combinations of ranks"
            )
        fields.finish()
        return space

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The choices in the order of the S4 procedure."""
        names = self._group_names
        dims = [Dimension(name="grouping", choices=self.groupings)]
        if self.ranks:
            dims += [Dimension(name=f"rank.{g}", choices=tuple(map(str, self.ranks))) for g in names]
        else:
            tunable = subsets(names) if self.tunable == "any" else ("+".join(names),)
            dims += [Dimension(name="allocation", choices=self.allocations), Dimension(name="tunable", choices=tunable)]
            mixes = subsets(self.methods, self.max_methods)
            dims += [Dimension(name=f"methods.{g}", choices=mixes) for g in names]
        if self.budget_shares:
            dims.append(Dimension(name="budget_share", choices=self.budget_shares))
        if self.learning_rates:
            dims.append(Dimension(name="learning_rate", choices=self.learning_rates))
        return tuple(dims)

    @property
    def n_designs(self) -> int:
        """Number of designs: groupings x (allocations x group choices | distinct ratios of ranks) x shares x rates."""
        around = len(self.groupings) * max(1, len(self.budget_shares)) * max(1, len(self.learning_rates))
        if self.ranks:
            ratios = {_reduced(r) for r in product(self.ranks, repeat=self.groups) if any(r)}
            return around * len(ratios)
        mixes = self.n_subsets
        of_groups: int = (1 + mixes) ** self.groups - 1 if self.tunable == "any" else mixes**self.groups
        return around * len(self.allocations) * of_groups

    @property
    def n_subsets(self) -> int:
        """Number of sets of methods that a tuned group chooses from."""
        n = len(self.methods)
        return sum(comb(n, size) for size in range(1, min(n, self.max_methods or n) + 1))

    def design(self, params: Mapping[str, Any]) -> Design:
        """The design at a point; choices for groups that are not tuned are ignored."""
        names = self._group_names
        methods: tuple[tuple[str, ...], ...]
        if self.ranks:
            ranks = tuple(int(params[f"rank.{g}"]) for g in names)
            allocation = tuple(float(max(1, r)) for r in _reduced(ranks))
            methods = tuple(self.methods if r else () for r in ranks)
        else:
            allocation = allocation_weights(str(params["allocation"]), self.groups)
            tuned = str(params["tunable"]).split("+")
            methods = tuple(tuple(str(params[f"methods.{g}"]).split("+")) if g in tuned else () for g in names)
        rate = params.get("learning_rate")
        return Design(
            grouping=str(params["grouping"]),
            allocation=allocation,
            methods=methods,
            learning_rate=None if rate is None else float(rate),
            budget_share=float(params.get("budget_share", 1.0)),
            leave_out=self.leave_out,
        )

    def params(self, design: Design) -> dict[str, Choice] | None:
        """The inverse of `design`, whatever the order of a group's methods; untuned groups get the first choice."""
        dimensions = self.dimensions
        for params in self._candidates(design):
            allowed = all(params.get(d.name) in d.choices for d in dimensions)
            if allowed and _in_order(self.design(params)) == _in_order(design):
                return params
        return None

    def _candidates(self, design: Design) -> Iterator[dict[str, Choice]]:
        if len(design.methods) != self.groups:
            return
        names = self._group_names
        base: dict[str, Choice] = {"grouping": design.grouping}
        if design.learning_rate is not None:
            base["learning_rate"] = design.learning_rate
        if self.budget_shares:
            base["budget_share"] = design.budget_share
        if self.ranks:
            for ranks in product(self.ranks, repeat=self.groups):
                yield base | {f"rank.{g}": str(r) for g, r in zip(names, ranks, strict=True)}
            return
        base["tunable"] = "+".join(names[i] for i in design.tunable)
        for g, chosen in zip(names, design.methods, strict=True):
            ordered = [m for m in self.methods if m in chosen] if chosen else list(self.methods[:1])
            base[f"methods.{g}"] = "+".join(ordered)
        for allocation in self.allocations:
            yield base | {"allocation": allocation}

    def neighbours(self, params: Mapping[str, Any]) -> list[dict[str, Choice]]:
        """Points of the designs that differ by one elementary change, each once; untuned groups have the first choice.

        A change is another grouping; another allocation; one tuned group more or less (an added group may take any
        methods, so that the change is symmetric); one method more or less in a tuned group; the next lower or higher
        rank of a group, share of the budget or learning rate.
        """
        same = [self._canonical(params)] if not self.ranks else self._equivalents(params)
        own = self.design(params)
        found: dict[Design, dict[str, Choice]] = {}
        for point in same:
            for changed in self._changes(point):
                design = self.design(changed)
                if design.tunable and design != own:
                    found.setdefault(design, self._canonical(changed))
        return list(found.values())

    def _canonical(self, params: Mapping[str, Any]) -> dict[str, Choice]:
        """The representative of all points of the same design."""
        if self.ranks:
            return min(self._equivalents(params), key=lambda p: [d.choices.index(p[d.name]) for d in self.dimensions])
        tuned = str(params["tunable"]).split("+")
        point = {d.name: params[d.name] for d in self.dimensions}
        return point | {f"methods.{g}": self.methods[0] for g in self._group_names if g not in tuned}

    def _equivalents(self, params: Mapping[str, Any]) -> list[dict[str, Choice]]:
        """All points whose ranks have the same ratio."""
        ratio = _reduced(tuple(int(params[f"rank.{g}"]) for g in self._group_names))
        scaled = (tuple(r * scale for r in ratio) for scale in range(1, max(self.ranks) + 1))
        fitting = [ranks for ranks in scaled if set(ranks) <= set(self.ranks)]
        point = {d.name: params[d.name] for d in self.dimensions}
        named = [{f"rank.{g}": str(r) for g, r in zip(self._group_names, ranks, strict=True)} for ranks in fitting]
        return [point | ranks for ranks in named]

    def _changes(self, params: dict[str, Choice]) -> Iterator[dict[str, Choice]]:
        tuned = str(params.get("tunable", "")).split("+")
        for dimension in self.dimensions:
            name, current = dimension.name, params[dimension.name]
            if name.startswith("rank.") or name in {"learning_rate", "budget_share"}:
                yield from (params | {name: value} for value in next_values(dimension.choices, current))  # type: ignore[type-var]
            elif name.startswith("methods."):
                if name.removeprefix("methods.") in tuned:
                    yield from (params | {name: mix} for mix in toggled(str(current), self.methods, self.max_methods))
            elif name == "tunable":
                yield from self._group_changes(params, tuned)
            else:
                yield from (params | {name: choice} for choice in dimension.choices if choice != current)

    def _group_changes(self, params: dict[str, Choice], tuned: list[str]) -> Iterator[dict[str, Choice]]:
        if self.tunable == "all":
            return
        for groups in toggled("+".join(tuned), self._group_names):
            added = [g for g in groups.split("+") if g not in tuned]
            mixes = subsets(self.methods, self.max_methods) if added else (None,)
            for mix in mixes:
                yield params | {"tunable": groups} | ({f"methods.{added[0]}": mix} if mix else {})

    def smallest_points(self) -> list[dict[str, Choice]]:
        """Points that include the cheapest design: one method in one group, or in all where all must be tuned.

        Where all groups must be tuned, a group costs most with its own cheapest method, which these points may miss by
        combining one method for all; a space with ranks is small enough to give all its points.
        """
        names = self._group_names
        first: dict[str, Choice] = {d.name: d.choices[0] for d in self.dimensions}
        if self.budget_shares:
            first["budget_share"] = max(self.budget_shares)
        groupings: list[dict[str, Choice]] = [first | {"grouping": grouping} for grouping in self.groupings]
        if self.ranks:
            some = [dict.fromkeys((f"rank.{g}" for g in names), str(min(self.ranks)))]
            least = str(min((r for r in self.ranks if r), default=1))
            points: list[dict[str, Choice]] = [{**zero, f"rank.{g}": least} for zero in some for g in names]
            return [one | point for one in groupings for point in points]
        if self.tunable == "all":
            mixes = product(self.methods, repeat=len(names)) if len(self.methods) ** len(names) <= 4096 else ()
            chosen = [dict(zip(names, mix, strict=True)) for mix in mixes] or [
                dict.fromkeys(names, method) for method in self.methods
            ]
            return [one | {f"methods.{g}": m for g, m in mix.items()} for one in groupings for mix in chosen]
        return [
            one | {"tunable": g, f"methods.{g}": method} for one in groupings for g in names for method in self.methods
        ]

    @property
    def _group_names(self) -> list[str]:
        return [f"G{i + 1}" for i in range(self.groups)]

    def bound_to(self, n_blocks: int, methods: tuple[str, ...]) -> SearchSpace:
        """Drop groupings that coincide at this depth and methods that cannot act on the backbone.

        Raises:
            ConfigError: No method is left, or there are fewer blocks than groups.
        """
        left = tuple(method for method in self.methods if method in methods)
        if not left:
            raise ConfigError(f"space {self.name}: none of its methods ({', '.join(self.methods)}) can act here")
        return replace(self, groupings=distinct_groupings(self.groupings, n_blocks, self.groups), methods=left)

    def with_budget_shares(self, shares: tuple[float, ...]) -> SearchSpace:
        """The space with the share of the budget as a dimension; unchanged if it already has that dimension."""
        return self if self.budget_shares else replace(self, budget_shares=shares)


def load_space(name: str) -> DesignSpace:
    """Load a space by its shipped name, YAML path, or `package.module:Object`.

    Raises:
        ConfigError: The space does not exist, or lacks a part of the form.
    """
    found, entry = load_entry("search_spaces", "space", name)
    if isinstance(entry, Mapping):
        kind = entry.get("kind", "groups")
        if not isinstance(kind, str) or kind not in KINDS:
            raise ConfigError(f"space {found}: {unknown_name('kind', kind, KINDS)}")
        space: DesignSpace = load_object(KINDS[kind]).from_dict(found, {k: v for k, v in entry.items() if k != "kind"})
        return space
    if isinstance(entry, type):
        raise ConfigError(f"space {name}: is a class; give an instance of it")
    missing = [
        part
        for part in ("dimensions", "n_designs", "design", "params", "neighbours", "bound_to")
        if not hasattr(entry, part)
    ]
    if missing:
        raise ConfigError(f"space {name}: the object lacks {', '.join(missing)}")
    return entry  # type: ignore[return-value]  # its interface was checked just above


def allocation_weights(allocation: str, n_groups: int) -> tuple[float, ...]:
    """Relative budget of one block of each group: n_i non-decreasing, equal or non-increasing (2301.01821, sec. 3.1).

    The ramp is linear in the group: increasing is 1:2:3:4 for four groups.
    """
    ramp = tuple(float(i + 1) for i in range(n_groups))
    return {"increasing": ramp, "uniform": (1.0,) * n_groups, "decreasing": tuple(reversed(ramp))}[allocation]


def _in_order(design: Design) -> Design:
    """The design with the methods of each group sorted, since their order has no meaning."""
    return replace(design, methods=tuple(tuple(sorted(group)) for group in design.methods))


def _all_or_list(value: list[Any] | str) -> str | None:
    """A check that methods are a list of names, or the text `all`."""
    if isinstance(value, str):
        return None if value == "all" else f"must be a list of names or 'all', got {one_line(value, 40)!r}"
    return list_of(str)(value)


def _share(value: float) -> str | None:
    """A check that a number is a share of the budget."""
    return None if 0 < value <= 1 else f"must hold shares above 0 and at most 1, got {value}"


def _reduced(ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Ranks divided by their greatest common divisor: 2:2:4:0 and 1:1:2:0 are one design."""
    divisor = gcd(*ranks) or 1
    return tuple(r // divisor for r in ranks)
