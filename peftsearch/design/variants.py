"""Read the variants of methods that a space names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftsearch.errors import ConfigError, one_line
from peftsearch.fields import Fields, list_of, one_of
from peftsearch.methods import METHODS, get_method, variant_name
from peftsearch.methods.projections import TARGETS


def read_variants(where: str, data: Mapping[str, Any]) -> dict[str, str]:
    """Read the variants that a space names: `lora_ffn: {method: lora, targets: [ffn_in, ffn_out]}`.

    Args:
        where: Name of the space.
        data: The definitions by the name that `methods` uses.

    Returns:
        The name of each as methods are called everywhere else: `lora:ffn`.

    Raises:
        ConfigError: A definition has faults, or its name is that of a method.
        MethodError: A definition names an unknown method or target.
    """
    found = {}
    for alias, definition in data.items():
        place = f"space {where}: variant {one_line(str(alias), 40)}"
        if not isinstance(alias, str) or not isinstance(definition, Mapping):
            raise ConfigError(f"{place}: write it as NAME: {{method: lora, targets: [query, value]}}")
        if alias in METHODS:
            raise ConfigError(f"{place}: is the name of a method; take another")
        fields = Fields(place, definition)
        method, targets = fields.take("method", str), fields.take("targets", list, (), list_of(str, one_of(TARGETS)))
        fields.finish()
        found[alias] = get_method(variant_name(method, tuple(targets))).name
    return found
