"""Read a mapping field by field, reporting all faults at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from peftsearch.errors import ConfigError, one_line

_REQUIRED = object()


class Fields:
    """Read known fields of a mapping, collect all faults, and raise once.

    >>> fields = Fields("space.yaml", {"groups": 4})
    >>> fields.take("groups", int, 1)
    4
    >>> fields.finish()
    """

    def __init__(self, where: str, data: Mapping[str, Any]) -> None:
        self._where = where
        self._data = data
        self._known: list[str] = []
        self._faults: list[str] = []

    def take(
        self,
        name: str,
        kind: type | tuple[type, ...],
        default: Any = _REQUIRED,
        check: Callable[[Any], str | None] | None = None,
    ) -> Any:
        """Read one field.

        Args:
            name: Name of the field.
            kind: The allowed type or types; a bool never counts as a number, an int counts as a float.
            default: Value of an absent field; without a default the field is required.
            check: Returns the fault of a value, or None.

        Returns:
            The value or the default; after a fault, the default or None (`finish` will raise).
        """
        self._known.append(name)
        if name not in self._data:
            if default is _REQUIRED:
                self._faults.append(f"{name!r} is missing")
                return None
            return default
        value = self._data[name]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(k.__name__ for k in kinds)
            self._faults.append(f"{name!r} must be {wanted}, got {one_line(repr(value), 40)}")
        elif check is not None and (fault := check(value)) is not None:
            self._faults.append(f"{name!r} {fault}")
        else:
            return value
        return None if default is _REQUIRED else default

    def fault(self, text: str) -> None:
        """Add a fault, for example one that concerns several fields."""
        self._faults.append(text)

    def finish(self) -> None:
        """Raise all faults, including unknown fields.

        Raises:
            ConfigError: There is at least one fault.
        """
        for name in sorted(map(str, set(self._data) - set(self._known))):
            near = difflib.get_close_matches(name, self._known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(self._known)})"
            self._faults.append(f"unknown key {one_line(name, 40)!r}{hint}")
        if self._faults:
            raise ConfigError(f"{self._where}: {'; '.join(self._faults)}")


def at_least(low: float) -> Callable[[Any], str | None]:
    """Make a check that a number is finite and at least `low`."""
    return lambda value: None if low <= value < float("inf") else f"must be at least {low:g}, got {value}"


def above(low: float) -> Callable[[Any], str | None]:
    """Make a check that a number is finite and above `low`."""
    return lambda value: None if low < value < float("inf") else f"must be above {low:g}, got {value}"


def one_of(known: tuple[str, ...]) -> Callable[[Any], str | None]:
    """Make a check that a text is one of the known ones."""
    return lambda value: None if value in known else f"must be one of {', '.join(known)}, got {one_line(value, 40)!r}"


def list_of(kind: type, check: Callable[[Any], str | None] | None = None) -> Callable[[Any], str | None]:
    """Make a check that a list is non-empty, has no duplicates, and that each value has the type and passes `check`."""

    def checked(values: Any) -> str | None:
        if not values:
            return "must not be empty"
        for value in values:
            number = kind is float and isinstance(value, int)
            if isinstance(value, bool) or not (isinstance(value, kind) or number):
                return f"must hold {kind.__name__} values, got {one_line(repr(value), 40)}"
            if check is not None and (fault := check(value)) is not None:
                return fault
        if len(set(values)) < len(values):
            return "holds a value twice"
        return None

    return checked
