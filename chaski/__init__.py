"""The client that other services install: `chaski.send()`.

The functions here use one shared `Client`, made at the first call from `CHASKI_URL` and `CHASKI_API_KEY`
(Django's settings where Django is configured, else the environment). Importing this loads nothing but the
standard library.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from inspect import signature
from typing import TYPE_CHECKING, Any

from chaski import configuration
from chaski.client import Client, __version__
from chaski.errors import (
    AuthenticationError,
    ChaskiError,
    ConfigurationError,
    Conflict,
    IdempotencyConflict,
    InvalidMessage,
    NoAnswer,
    NotFound,
    PermissionDenied,
    RateLimited,
    Timeout,
    Unavailable,
)
from chaski.messages import BatchResult, File, Message, MessageError, Rejected
from chaski.vocabulary import Status

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = [
    "AuthenticationError",
    "BatchResult",
    "ChaskiError",
    "Client",
    "ConfigurationError",
    "Conflict",
    "File",
    "IdempotencyConflict",
    "InvalidMessage",
    "Message",
    "MessageError",
    "NoAnswer",
    "NotFound",
    "PermissionDenied",
    "RateLimited",
    "Rejected",
    "Status",
    "Timeout",
    "Unavailable",
    "__version__",
    "cancel",
    "get",
    "list",
    "redeliver",
    "send",
    "send_many",
    "upload",
    "wait",
]


@lru_cache(maxsize=8)
def _client(url: str, api_key: str) -> Client:
    """One client per address and key, so that changed settings (in tests) get their own."""
    return Client(url, api_key)


def _shared(method: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """A client's method as a function on the shared client, with the same arguments and documentation."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        client = _client(*configuration.connection(None, None))
        return getattr(client, method.__name__)(*args, **kwargs)

    own = signature(method)
    call.__signature__ = own.replace(parameters=[*own.parameters.values()][1:])  # type: ignore[attr-defined]
    return call


send = _shared(Client.send)
send_many = _shared(Client.send_many)
upload = _shared(Client.upload)
get = _shared(Client.get)
list = _shared(Client.list)
cancel = _shared(Client.cancel)
redeliver = _shared(Client.redeliver)
wait = _shared(Client.wait)
