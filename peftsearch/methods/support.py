"""Check which methods a backbone supports, from its anatomy alone, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable

from peftsearch.backbone.anatomy import Backbone
from peftsearch.errors import MethodError
from peftsearch.methods import get_method


def find_obstacle(name: str, backbone: Backbone) -> str | None:
    """Say why a method cannot act on a backbone: its obstacle on the first block that has one; None when it can.

    Raises:
        MethodError: There is no such method.
    """
    method = get_method(name)
    return next((found for block in backbone.blocks if (found := method.obstacle(block)) is not None), None)


def require_methods(names: Iterable[str], backbone: Backbone) -> None:
    """Refuse methods that a backbone does not support.

    Raises:
        MethodError: A method is unsupported; names the first, the reason, and the method to use instead.
    """
    for name in names:
        if (found := find_obstacle(name, backbone)) is not None:
            raise MethodError(
                f"{name} cannot act on {backbone.name or 'this backbone'} ({backbone.model_type}): {found}"
            )
