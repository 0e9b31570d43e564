"""The address of a Ray cluster, checked without importing Ray."""

from __future__ import annotations

import socket

from peftsearch.errors import ConfigError, one_line

_ANSWER_S = 5.0


def check_address(address: str | None) -> None:
    """Check the form of an address: None for Ray on this machine, `auto` or `HOST:PORT`.

    Raises:
        ConfigError: It has another form.
    """
    if address is None or address == "auto":
        return
    if address.startswith("ray://"):  # Ray Client runs Tune on the cluster, which cannot write this machine's study
        raise ConfigError(
            f"--ray-address {address}: Ray Client is not supported; run on a node of the cluster and give HOST:PORT "
            "or auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--ray-address {address!r}: give HOST:PORT or auto")


def require_answer(address: str | None) -> None:
    """Check that something listens at an address; Ray itself would wait for minutes.

    Raises:
        ConfigError: Nothing does.
    """
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray-address {address}: does not answer ({one_line(error, 80)}); `ray status` on its head node shows "
            "whether the cluster is up"
        ) from error
