"""The space of AutoPEFT (arXiv 2301.12132, sec. 3.1): which blocks are tuned, and one size per method.

Every block is on or off, and every method has one absolute size, the same on all blocks that are on; 0 leaves the
method out. The dimensions, in the order in which a staged search decides them, are `block.0` ... (the position over all
stacks, input side first) and `size.METHOD` ... in the order of the YAML. A design fixes its sizes: a design that
exceeds the budget is infeasible and is not scaled down. All blocks off, or all sizes 0, is not a design.

The paper's own space has a serial (Pfeiffer) adapter, a parallel adapter and prefix, with sizes of d / 2^k and 0. Its
search is Bayesian with two objectives, score and parameters; here the search is left to the samplers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from peftsearch.design.design import Design
from peftsearch.design.space import Choice, Dimension
from peftsearch.errors import ConfigError
from peftsearch.fields import Fields, at_least, list_of

_MOST_BLOCKS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoPeftSpace:
    """A space of blocks and sizes, read from a YAML of `kind: autopeft`."""

    name: str
    description: str
    """One line for `peftsearch list spaces`."""
    blocks: int
    """Number of blocks of the backbone; until `bound_to` sets it, the YAML's number (12 where it has none)."""
    sizes: tuple[tuple[str, tuple[int, ...]], ...]
    """Sizes that each method may take, ascending; 0 leaves it out."""

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> AutoPeftSpace:
        """Read a space.

        Raises:
            ConfigError: The mapping has faults; lists all of them.
        """
        fields = Fields(f"space {name}", data)
        description = fields.take("description", str, "")
        blocks = fields.take("blocks", int, 12, at_least(1))
        given = fields.take("sizes", dict) or {}
        if given == {} == data.get("sizes"):
            fields.fault("'sizes' must name at least one method")
        for method, sizes in given.items():
            if not isinstance(method, str) or not isinstance(sizes, list):
                fields.fault(f"'sizes' must map names of methods to lists of sizes, got {method}: {sizes}")
            elif fault := list_of(int, at_least(0))(sizes):
                fields.fault(f"'sizes': {method} {fault}")
            elif not any(sizes):
                fields.fault(f"'sizes': {method} needs a size above 0")
        if blocks > _MOST_BLOCKS:
            fields.fault(f"'blocks' must be at most {_MOST_BLOCKS:,}, got {blocks:,}")
        fields.finish()
        return cls(
            name=name,
            description=description,
            blocks=blocks,
            sizes=tuple((method, tuple(sorted(sizes))) for method, sizes in given.items()),
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that have a size."""
        return tuple(method for method, _ in self.sizes)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """One switch per block, then one size per method."""
        switches = [Dimension(name=f"block.{i}", choices=("on", "off")) for i in range(self.blocks)]
        return (*switches, *(Dimension(name=f"size.{m}", choices=tuple(map(str, sizes))) for m, sizes in self.sizes))

    @property
    def n_designs(self) -> int:
        """Non-empty sets of blocks x combinations of sizes that are not all 0."""
        of_sizes = prod(len(sizes) for _, sizes in self.sizes)
        return ((1 << self.blocks) - 1) * (of_sizes - all(0 in sizes for _, sizes in self.sizes))

    def design(self, params: Mapping[str, Any]) -> Design:
        """The design that the choices name: a group for each block; one without a tuned group where all is off."""
        sizes = {method: int(params[f"size.{method}"]) for method in self.methods}
        used = tuple(method for method in self.methods if sizes[method])
        methods = tuple(used if params[f"block.{i}"] == "on" else () for i in range(self.blocks))
        return Design(
            grouping="uniform",
            allocation=(1.0,) * self.blocks,
            methods=methods,
            sizes=tuple((method, sizes[method]) for method in used) if any(methods) else (),
        )

    def params(self, design: Design) -> dict[str, Choice] | None:
        """The inverse of `design`; None for designs outside the space, such as one with nothing tuned."""
        if len(design.methods) != self.blocks or not design.tunable:
            return None
        sizes = dict(design.sizes)
        params: dict[str, Choice] = {f"block.{i}": "on" if m else "off" for i, m in enumerate(design.methods)}
        params |= {f"size.{method}": str(sizes.get(method, 0)) for method in self.methods}
        allowed = all(params[d.name] in d.choices for d in self.dimensions)
        return params if allowed and self.design(params) == design else None

    def neighbours(self, params: Mapping[str, Any]) -> list[dict[str, Choice]]:
        """All designs that differ by one block switched or by one size moved up or down one step."""
        found: list[dict[str, Choice]] = []
        for dimension in self.dimensions:
            at = dimension.choices.index(params[dimension.name])
            steps = [i for i in (at - 1, at + 1) if 0 <= i < len(dimension.choices)]
            found += [{**params, dimension.name: dimension.choices[i]} for i in steps]
        return [point for point in found if self.design(point).tunable]

    def smallest_points(self) -> Iterator[dict[str, Choice]]:
        """Points that include the cheapest design: one block on, and as few and as small methods as possible."""
        least = {f"size.{method}": str(sizes[0]) for method, sizes in self.sizes}
        for block in range(self.blocks):
            base: dict[str, Choice] = {f"block.{i}": "on" if i == block else "off" for i in range(self.blocks)}
            for method, sizes in self.sizes:
                yield {**base, **least, f"size.{method}": str(next(filter(None, sizes)))}

    def bound_to(self, n_blocks: int, methods: tuple[str, ...]) -> AutoPeftSpace:
        """The space with a switch for each block of the backbone and without methods that cannot act on it.

        Raises:
            ConfigError: No method is left.
        """
        left = tuple((method, sizes) for method, sizes in self.sizes if method in methods)
        if not left:
            raise ConfigError(f"space {self.name}: none of its methods ({', '.join(self.methods)}) can act here")
        return replace(self, blocks=n_blocks, sizes=left)
