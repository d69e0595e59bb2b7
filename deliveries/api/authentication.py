"""Bearer keys: who calls. A key that was revoked is refused within two seconds."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import structlog
from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import Q
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from deliveries.models import ApiKey, Service
from deliveries.secrets import split_key
from deliveries.sql import is_away

log = structlog.get_logger(__name__)

CACHE_SECONDS = 2.0
CACHE_KEYS = 10_000
USED_EVERY_SECONDS = 60.0
_NOTHING = b"\0" * 32


@dataclass(frozen=True, slots=True)
class Caller:
    """The service that calls, in the place of Django's user."""

    service: Service
    key_id: str
    is_authenticated: bool = True


@dataclass(frozen=True, slots=True)
class _Known:
    read_at: float
    secret_sha256: bytes
    service: Service | None
    expires_at: datetime | None


class _Keys:
    """The keys that were asked for lately. Thread-safe; a miss is remembered too."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, _Known] = {}
        self._used: dict[str, float] = {}

    def find(self, key_id: str) -> _Known:
        known = self._known.get(key_id)
        if known is None or time.monotonic() - known.read_at > CACHE_SECONDS:
            known = self._read(key_id)
            with self._lock:
                if len(self._known) >= CACHE_KEYS:
                    self._known.clear()
                self._known[key_id] = known
        return known

    @staticmethod
    def _read(key_id: str) -> _Known:
        key = ApiKey.objects.select_related("service").filter(key_id=key_id, revoked_at__isnull=True).first()
        if key is None:
            return _Known(time.monotonic(), _NOTHING, None, None)
        return _Known(time.monotonic(), bytes(key.secret_sha256), key.service, key.expires_at)

    def used(self, key_id: str) -> None:
        """Write ``last_used_at`` once a minute at most: it is for people."""
        now = time.monotonic()
        if now - self._used.get(key_id, float("-inf")) < USED_EVERY_SECONDS:
            return
        self._used[key_id] = now
        moment = datetime.now(UTC)
        # Other processes keep a minute of their own.
        stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=moment - timedelta(seconds=USED_EVERY_SECONDS))
        try:
            with transaction.atomic():
                ApiKey.objects.filter(stale, key_id=key_id).update(last_used_at=moment)
        except DatabaseError as error:
            if not is_away(error):
                raise
            # A read-only database still answers what is read; one that is away fails at the next statement.
            log.info("use_of_key_not_noted", key_id=key_id, error=type(error).__name__)


_keys = _Keys()


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer ck_...`. An unknown id and a wrong secret look and cost the same."""

    def authenticate(self, request: Request) -> tuple[Any, None]:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        parts = split_key(text.strip()) if scheme.lower() == "bearer" else None
        if parts is None:
            raise AuthenticationFailed("Send `Authorization: Bearer ck_...` with a whole API key.")
        key_id, secret_sha256 = parts
        known = _keys.find(key_id)
        if not hmac.compare_digest(known.secret_sha256, secret_sha256) or known.service is None:
            raise AuthenticationFailed("This API key is not known, or was revoked. Ask an operator for another one.")
        if known.expires_at is not None and known.expires_at <= datetime.now(UTC):
            raise AuthenticationFailed("This API key has expired; ask an operator for a new one.")
        _keys.used(key_id)
        return Caller(known.service, key_id), None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class _Scheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An API key of a service."}
