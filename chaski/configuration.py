"""Where the service is and with which key: read from Django's settings or the environment. Called when a
client is made.
"""

from __future__ import annotations

import os
import re
import sys
from urllib.parse import urlsplit

from chaski.errors import ConfigurationError
from chaski.wire import API_ROOT

_HINTS = {
    "CHASKI_URL": "the address of the service, such as https://chaski.example.com",
    "CHASKI_API_KEY": "the key that `manage.py service create` printed, starting with ck_",
}


def connection(url: str | None, api_key: str | None) -> tuple[str, str]:
    """URL and key, checked; what is None is looked up. Raises ``ConfigurationError`` that names what is
    missing.
    """
    given = {"CHASKI_URL": url, "CHASKI_API_KEY": api_key}
    found = {name: (_looked_up(name) if value is None else value).strip() for name, value in given.items()}
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise ConfigurationError(_missing_text(missing), code="not_configured")
    return checked_url(found["CHASKI_URL"]), checked_key(found["CHASKI_API_KEY"])


def checked_url(url: str) -> str:
    """``url`` without a slash and API root at its end. Raises ``ConfigurationError``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"CHASKI_URL must look like https://chaski.example.com, not {url!r}")
    if "@" in parts.netloc:
        raise ConfigurationError("CHASKI_URL must hold no user and password: the key goes into CHASKI_API_KEY")
    trimmed = url.rstrip("/")
    return trimmed[: -len(API_ROOT)] if trimmed.endswith(API_ROOT) else trimmed


def checked_key(api_key: str) -> str:
    """``api_key`` if it can stand in a header. Raises ``ConfigurationError``, which does not show it."""
    if not re.match(r"[!-~]+\Z", api_key):
        raise ConfigurationError("CHASKI_API_KEY holds blanks or other characters that no key has: copy it again")
    return api_key


def _looked_up(name: str) -> str:
    """Django's settings win where they define the name, even as empty: so a project says "not here"."""
    settings = _django_settings()
    if settings is not None and hasattr(settings, name):
        return str(getattr(settings, name) or "")
    return os.environ.get(name, "")


def _django_settings() -> object | None:
    """The settings, if Django is imported and configured; asking must neither import nor configure it."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    return settings if getattr(settings, "configured", False) else None


def _missing_text(names: list[str]) -> str:
    looked = "the environment" if _django_settings() is None else "Django's settings and the environment"
    wanted = "; ".join(f"{name} ({_HINTS[name]})" for name in names)
    return (
        f"{' and '.join(names)} not set; looked in {looked}. Set {wanted} in Django's settings or "
        "in the environment, or pass them: chaski.Client(url=..., api_key=...)"
    )
