"""Free ports on 127.0.0.1. Used by `bin/up` and by tests."""

from __future__ import annotations

import socket
from collections.abc import Collection

TRIED = 200


class NoFreePortError(Exception):
    """Every port that was tried is taken; the message names them."""


def next_free(wanted: int, *, taken: Collection[int] = ()) -> int:
    """``wanted``, or the next port above it that is not in ``taken`` and that nobody listens on.

    Another program may take it before it is used; then that process fails to start, says so and is started
    again.
    """
    for port in range(wanted, wanted + TRIED):
        if port not in taken and _is_free(port):
            return port
    raise NoFreePortError(f"The ports {wanted} to {wanted + TRIED - 1} of 127.0.0.1 are all in use.")


def any_free() -> int:
    """One that the system chooses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers themselves do: connections that were closed a minute ago are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
