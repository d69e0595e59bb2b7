"""Meta's Graph API: what WhatsApp, Messenger and Instagram have in common. Signatures, the handshake, errors.

Used by these providers. Meta says to build on ``code``, not on the HTTP status or the title, which change.
https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from abc import ABC
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from urllib3 import encode_multipart_formdata

from channels.answers import by_status, json_error, json_object, retry_after, unreadable
from channels.base import Forged, InboundRequest, InvalidOption, Misconfigured, Option, Provider, SendError, Unreadable
from channels.codes import Codes
from channels.http import HttpClient, HttpResponse
from channels.kept import UPLOAD_SECONDS, MediaId

VERSION = "v23.0"
_ID = re.compile(r"[0-9]{1,20}")
#: https://developers.facebook.com/docs/graph-api/guides/error-handling#errorcodes: 200 to 299.
_PERMISSION = re.compile(r"2\d\d")
_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})")
_MEDIA_ID = re.compile(r"[A-Za-z0-9_:.-]{1,255}")

TOKEN = Option("token", "the access token of a system user, which does not expire", required=True, secret=True)
APP_SECRET = Option("app_secret", "the app's secret, which signs what Meta reports", secret=True)
VERIFY_TOKEN = Option("verify_token", "the word that was typed into Meta's form for the webhook", secret=True)
BASE_URL = Option("base_url", "where the Graph API is", default=f"https://graph.facebook.com/{VERSION}")
_LINK = "link"
MEDIA = Option(
    "media",
    "how Meta gets a file: upload, once for all messages with it, or link, for each message from CHASKI_PUBLIC_URL",
    default="upload",
)


#: Fields by their names: a text, or a file: its name, its bytes, its media type.
Form = Mapping[str, str | tuple[str, bytes, str]]


class Graph(Provider, ABC):
    """What is reported comes signed with the app's secret, and begins with a handshake by GET."""

    codes: ClassVar[Codes]
    receipts = True
    replies = True

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        usual = next(option.default for option in self.options if option.name == "base_url")
        self._base = (settings.get("base_url") or usual).rstrip("/")
        self._headers = {"Authorization": f"Bearer {settings['token']}", "Content-Type": "application/json"}

    async def post(self, path: str, fields: Mapping[str, Any]) -> HttpResponse:
        """POST ``fields`` as JSON. Raises the ``SendError`` of a refusal."""
        return await self._posted(path, self._headers, json.dumps(fields).encode(), self.call_seconds)

    async def upload(self, path: str, fields: Form, answer: str, lasts: timedelta) -> MediaId:
        """POST ``fields`` as a form; the id that Meta's ``answer`` holds under that name. Raises a ``SendError``."""
        body, content_type = encode_multipart_formdata(fields)
        response = await self._posted(path, self._headers | {"Content-Type": content_type}, body, UPLOAD_SECONDS)
        given = json_object(response).get(answer)
        if not isinstance(given, str) or not _MEDIA_ID.fullmatch(given):
            raise unreadable(response)
        return MediaId(given, lasts)

    @property
    def uploads(self) -> bool:
        """Does this account give Meta files, or links to them?"""
        return self.settings.get(MEDIA.name) != _LINK

    async def _posted(self, path: str, headers: Mapping[str, str], body: bytes, seconds: float) -> HttpResponse:
        url = f"{self._base}/{path}"
        response = await self.http.request("POST", url, headers=headers, body=body, timeout=seconds)
        if 200 <= response.status < 300:
            return response
        raise self._error(response)

    def _error(self, response: HttpResponse) -> SendError:
        error = json_error(response).get("error")
        error = error if isinstance(error, dict) else {}
        code, said = self._code(error), self.redact(_words(error))
        wait = retry_after(response.headers) or _usage_wait(response.headers)
        if code not in self.codes and _PERMISSION.fullmatch(code):
            return Misconfigured(code, f"the app lacks a permission: {said}")
        return self.codes.error(code, said, retry_after=wait) or by_status(response, said, code)

    def _code(self, error: Mapping[str, Any]) -> str:
        """The code, with its subcode where the table has both."""
        code = str(error.get("code", ""))
        both = f"{code}/{error.get('error_subcode', '')}"
        return both if both in self.codes else code

    def greet(self, request: InboundRequest) -> bytes | None:
        """Meta asks once whether the address is ours: GET with our word, and a challenge to say back."""
        if request.method != "GET":
            return None
        query, word = request.query, self.settings.get("verify_token", "")
        given = query.get("hub.verify_token", "")
        if query.get("hub.mode") != "subscribe" or not word or not hmac.compare_digest(given.encode(), word.encode()):
            raise Forged("the handshake does not hold the account's verify_token")
        return query.get("hub.challenge", "").encode()

    def verify(self, request: InboundRequest) -> None:
        """Check ``X-Hub-Signature-256``: the HMAC-SHA256 of the raw body by the app's secret. Raises ``Forged``."""
        secret = self.settings.get("app_secret", "")
        if not secret:
            raise Forged("the account has no app_secret, so nothing that Meta reports can be believed")
        found = _SIGNATURE.fullmatch(request.headers.get("x-hub-signature-256", ""))
        expected = hmac.new(secret.encode(), request.body, hashlib.sha256).hexdigest()
        if found is None or not hmac.compare_digest(found[1], expected):
            raise Forged("X-Hub-Signature-256 does not match; is app_secret that of the app which reports?")


def insist_on_media(settings: Mapping[str, str]) -> None:
    """Raises ``InvalidOption``."""
    if settings[MEDIA.name] not in (MEDIA.default, _LINK):
        raise InvalidOption(MEDIA.name, f"must be {MEDIA.default} or {_LINK}")


def insist_on_id(settings: Mapping[str, str], name: str) -> None:
    """Ids stand in the URL. Raises ``InvalidOption``."""
    if not _ID.fullmatch(settings[name]):
        raise InvalidOption(name, "must be an id of Meta's, digits only")


def entries(request: InboundRequest) -> list[dict[str, Any]]:
    """The entries of a report. Raises ``Unreadable``."""
    try:
        report = json.loads(request.body)
    except ValueError as error:
        raise Unreadable("the body is not JSON") from error
    found = report.get("entry") if isinstance(report, dict) else None
    if not isinstance(found, list):
        raise Unreadable("a report of Meta's holds a list of entries")
    return objects(found)


def objects(found: object) -> list[dict[str, Any]]:
    """The objects of a list; none of what is no list."""
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _words(error: Mapping[str, Any]) -> str:
    data = error.get("error_data")
    details = data.get("details", "") if isinstance(data, dict) else ""
    return " ".join(str(part) for part in (error.get("message", ""), details) if part)


def _usage_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until calls are taken again, by ``X-Business-Use-Case-Usage``, which tells minutes.

    https://developers.facebook.com/docs/graph-api/overview/rate-limiting#headers-2
    """
    try:
        usage = json.loads(headers.get("x-business-use-case-usage", "{}"))
    except ValueError:
        return None
    rows = [row for each in usage.values() if isinstance(each, list) for row in each] if isinstance(usage, dict) else []
    minutes = [row.get("estimated_time_to_regain_access") for row in rows if isinstance(row, dict)]
    longest = max((each for each in minutes if isinstance(each, int | float) and each > 0), default=0)
    return min(longest * 60.0, 86_400.0) or None
