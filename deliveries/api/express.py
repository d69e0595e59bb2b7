"""Receipts past Django: a vendor's signed POST is stored and answered before a request object, a URL or a middleware is made.

Those cost more than the receipt itself, and a campaign brings one for each of its messages. Stands before Django's WSGI
application (`config/wsgi.py`) and takes what can be stored as it is. Everything else, whatever is wrong with it, goes on to
`deliveries.api.inbound` as it came: refusals, greetings and their log lines are written there alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.http.request import split_domain_port, validate_host

from channels.base import InboundRequest
from deliveries.api import inbound
from deliveries.api.bodies import READ_SECONDS, ended_after
from deliveries.api.requests import begin
from deliveries.api.verifiers import verifiers
from deliveries.postgresql.group_commit import Interrupted

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_PATH = re.compile(r"/receipts/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\Z")
#: What Django would not write in another way: vendors sign the URL as it is.
_QUERY = re.compile(r"[A-Za-z0-9._~=&%+-]*\Z")
_LENGTH = re.compile(r"[0-9]{1,6}\Z")


class Express:
    """A WSGI application before ``django``. Thread-safe."""

    def __init__(self, django: Application) -> None:
        self._django = django

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        public_id = _receipts_of(environ)
        if public_id is not None:
            request_id = begin(environ.get("HTTP_X_REQUEST_ID", ""))
            if _stored(environ, public_id):
                headers = [("Content-Length", "0"), ("X-Content-Type-Options", "nosniff"), ("X-Request-Id", request_id)]
                start_response("200 OK", headers)
                return ()
        return self._django(environ, start_response)


class _Again(io.BytesIO):
    """A body that was read already, for whoever reads it next. Not slotted: ``deliveries.api.bodies`` marks it."""


def _receipts_of(environ: Environ) -> UUID | None:
    """The account whose receipts address this is, if nothing about the request is for Django to judge."""
    found = _PATH.match(environ["PATH_INFO"])
    plain = (
        found is not None
        and environ["REQUEST_METHOD"] == "POST"
        and not environ.get("SCRIPT_NAME")
        and "HTTP_TRANSFER_ENCODING" not in environ
        and _LENGTH.match(environ.get("CONTENT_LENGTH", "")) is not None
        and _QUERY.match(environ.get("QUERY_STRING", "")) is not None
        and _allowed(environ.get("HTTP_HOST", ""))
        and (not settings.SECURE_SSL_REDIRECT or environ.get("HTTP_X_FORWARDED_PROTO") == "https")
    )
    return UUID(found[1]) if plain and found else None


@lru_cache(maxsize=64)
def _allowed(host: str) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def _stored(environ: Environ, public_id: UUID) -> bool:
    """Read, verify and store it; False where the long way has to say what is wrong, or to greet."""
    request = _request(environ)
    if request is None:
        return False
    connection.close_if_unusable_or_obsolete()  # as Django does before each request
    try:
        account = verifiers.find(public_id)
        if account is None or account.greet(request) is not None:
            return False
        inbound.stored.write((account.account_id, account.read(request)))
    except (OperationalError, InterfaceError, Interrupted) as error:
        environ[inbound.MET] = error  # it has waited for the database already
        return False
    except Exception:  # noqa: BLE001 - the long way meets it again, and tells it
        return False
    return True


def _request(environ: Environ) -> InboundRequest | None:
    """As ``inbound.inbound_request`` makes it; None where the body did not come."""
    length = int(environ["CONTENT_LENGTH"])
    if length > inbound.BODY_LIMIT:
        return None
    body = _body(environ, length)
    if body is None:
        return None
    query = environ.get("QUERY_STRING", "")
    return InboundRequest(
        method="POST",
        url=f"{settings.CHASKI_PUBLIC_URL}{environ['PATH_INFO']}{'?' if query else ''}{query}",
        headers=_headers(environ),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        body=body,
    )


def _body(environ: Environ, length: int) -> bytes | None:
    try:
        with ended_after(environ, READ_SECONDS):
            body: bytes = environ["wsgi.input"].read(length)
    except Exception:  # noqa: BLE001 - whatever the server raises for a body that breaks off
        return None
    environ["wsgi.input"] = _Again(body)
    return body if len(body) == length else None


def _headers(environ: Environ) -> dict[str, str]:
    found = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    return {**found, "content-type": environ.get("CONTENT_TYPE", ""), "content-length": environ["CONTENT_LENGTH"]}
