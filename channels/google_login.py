"""Access tokens of Google's for a service account: kept while they hold, renewed once for all who wait.

Used by the provider ``fcm``. https://developers.google.com/identity/protocols/oauth2/service-account#httprest
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from channels.answers import by_status, is_success, json_error, wait_seconds
from channels.base import InDoubt, InvalidOption, Misconfigured, NotSent, Option, SendError, Throttled, Transient
from channels.codes import Codes
from channels.http import HttpClient, HttpResponse

#: A token is not used to its very end: it must still hold when the request arrives.
RENEWED_BEFORE_SECONDS = 300.0
_HOUR_SECONDS = 3600
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
#: It stands in URLs.
_PROJECT = re.compile(r"[a-z0-9.:-]{4,100}")

OPTION = Option("service_account", "the JSON file of a service account, its whole text", required=True, secret=True)
CODES = Codes(
    "https://developers.google.com/identity/protocols/oauth2/service-account#error-codes",
    {
        Misconfigured: {
            "invalid_grant": "Google refuses the service account's signature; is its key deleted, or the clock wrong?",
            "invalid_client": "Google does not know the service account",
            "unauthorized_client": "the service account may not ask for access",
            "access_denied": "the service account may not ask for access",
            "invalid_scope": "the service account may not ask for this kind of access",
            "disabled_client": "the service account is disabled",
        }
    },
)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What the JSON file of a service account says."""

    project_id: str
    client_email: str
    private_key_id: str
    private_key: RSAPrivateKey
    token_uri: str

    @classmethod
    def read(cls, text: str) -> ServiceAccount:
        """From the file's ``text``. Raises ``InvalidOption``, which names what is wrong and shows nothing of it."""
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise InvalidOption(OPTION.name, "must be the JSON file of a service account, its whole text")
        project_id = _field(given, "project_id")
        if not _PROJECT.fullmatch(project_id):
            raise InvalidOption(OPTION.name, "has a project_id that is none of Google's")
        return cls(
            project_id=project_id,
            client_email=_field(given, "client_email"),
            private_key_id=_field(given, "private_key_id"),
            private_key=_private_key(_field(given, "private_key")),
            token_uri=_field(given, "token_uri"),
        )

    def assertion(self, scope: str, at: datetime) -> str:
        """What is exchanged for a token that allows ``scope``: https://www.rfc-editor.org/rfc/rfc7523#section-3"""
        now = int(at.timestamp())
        claims = {
            "iss": self.client_email,
            "scope": scope,
            "aud": self.token_uri,
            "iat": now,
            "exp": now + _HOUR_SECONDS,
        }
        return jwt.encode(claims, self.private_key, algorithm="RS256", headers={"kid": self.private_key_id})


class Login:
    """The access token of one account. Whoever finds it stale asks for another; all others wait for that one.

    ``url`` is where tokens are given. Belongs to the loop of its first use.
    """

    def __init__(self, account: ServiceAccount, scope: str, url: str, http: HttpClient) -> None:
        self._account, self._scope, self._url, self._http = account, scope, url, http
        self._lock = asyncio.Lock()
        self._token = ""
        self._stale_at = 0.0

    async def token(self, at: datetime, seconds: float, refused: str = "") -> str:
        """A token other than the ``refused`` one, within ``seconds``. ``at`` is the time that Google is told.

        Raises ``NotSent``, ``Throttled`` or ``Misconfigured``: whatever happens here, no message has left.
        """
        try:
            async with asyncio.timeout(seconds), self._lock:
                if self._token == refused or time.monotonic() >= self._stale_at:
                    await self._renew(at, seconds)
                return self._token
        except TimeoutError:
            raise NotSent("token_timeout", "no access token came in time") from None

    async def _renew(self, at: datetime, seconds: float) -> None:
        response = await self._ask(at, seconds)
        answer = json_error(response)
        if not is_success(response):
            raise _refusal(response, answer)
        token, holds_seconds = answer.get("access_token"), wait_seconds(answer.get("expires_in"))
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise NotSent("unreadable_token", "the answer holds no access token; is token_url right?")
        if holds_seconds is None:
            holds_seconds = _HOUR_SECONDS
        self._token, self._stale_at = token, time.monotonic() + holds_seconds - RENEWED_BEFORE_SECONDS

    async def _ask(self, at: datetime, seconds: float) -> HttpResponse:
        form = {"grant_type": _GRANT, "assertion": self._account.assertion(self._scope, at)}
        try:
            return await self._http.request(
                "POST",
                self._url,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(),
                timeout=seconds,
            )
        except (NotSent, InDoubt) as error:
            raise NotSent(error.code, f"no access token: {error.detail}") from None


def _field(given: Mapping[str, Any], name: str) -> str:
    found = given.get(name)
    if not isinstance(found, str) or not found:
        raise InvalidOption(OPTION.name, f"must be the JSON file of a service account; it lacks {name}")
    return found


@lru_cache(maxsize=16)
def _private_key(pem: str) -> RSAPrivateKey:
    """Kept, for it takes tens of milliseconds, on the loop, and an account is read when it is checked and when it is used."""
    key: object = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, RSAPrivateKey):
        raise InvalidOption(OPTION.name, "has a private_key that is no RSA key in PEM without a password")
    return key


def _refusal(response: HttpResponse, answer: Mapping[str, Any]) -> SendError:
    """What the endpoint's no means for the message that waits for the token: never that its content is wrong."""
    code, said = _word(answer, "error"), _word(answer, "error_description")
    error = CODES.error(code, said) or by_status(response, said, code)
    if isinstance(error, Throttled):
        return error
    kind = NotSent if isinstance(error, Transient) else Misconfigured
    return kind(error.code, f"no access token: {error.detail}")


def _word(answer: Mapping[str, Any], name: str) -> str:
    found = answer.get(name)
    return found if isinstance(found, str) else ""
