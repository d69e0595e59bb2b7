"""SMS through Twilio's Messages resource, and the status callbacks it posts back.

Used by the delivery engine and the receipts endpoint.
https://www.twilio.com/docs/messaging/api/message-resource
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from channels import rules, twilio_list
from channels.answers import by_status, is_success, json_error, json_object, retry_after, unreadable
from channels.attachments import Carriage, Kind, Takes
from channels.base import (
    DETAIL_LIMIT,
    Accepted,
    ContentRefused,
    Forged,
    InboundRequest,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotAllowedNow,
    Option,
    Outbound,
    Provider,
    Receipt,
    ReceiptKind,
    RecipientRefused,
    Reply,
    SendError,
    Throttled,
    Transient,
    Unreadable,
)
from channels.http import HttpClient, HttpResponse
from channels.reports import our_id

BODY_LIMIT = 1600

#: Codes that decide differently from their HTTP status: https://www.twilio.com/docs/api/errors
#: One that is not here is classed by its status and shown with the attempt.
_CODES: dict[type[SendError], str] = {
    Throttled: "14107 20429 21611 30001 30022 30023 63018",
    Transient: "20500 20503 21730 30003 30008 30017 30410 30500",
    Misconfigured: "20003 20005 20404 21212 21408 21603 21606 21608 21701 21702 21703 21704 30002 30032 30034"
    " 63007 63051",
    RecipientRefused: "21211 21214 21217 21265 21610 21612 21614 30004 30005 30006 63003 63024 63033",
    ContentRefused: "21602 21617 21620 21623 21656 30007 30010 63005 63013 63021 63027 63028",
    NotAllowedNow: "63015 63016 63032 63049",
}
_CLASS_OF = {code: error for error, codes in _CODES.items() for code in codes.split()}
#: The recipient answered STOP; only its START lifts it.
_OPTED_OUT = "21610"

_KINDS = {
    "sent": ReceiptKind.SENT,
    "delivered": ReceiptKind.DELIVERED,
    "read": ReceiptKind.READ,
    "undelivered": ReceiptKind.UNDELIVERED,
    "failed": ReceiptKind.UNDELIVERED,
    "canceled": ReceiptKind.UNDELIVERED,
}
_SID = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}\Z")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")
_MEDIA_LIMIT = 10
_RULES: dict[str, rules.Rule] = {
    "media_url": lambda value: "" if _media(value) else f"must be a URL or a list of 1 to {_MEDIA_LIMIT}",
    "validity_seconds": rules.whole(1, 36_000),
    "content_sid": lambda value: "" if isinstance(value, str) and _SID.match(value) else "must be HX and 32 digits",
    "content_variables": rules.text,
}


class Twilio(Provider):
    """Twilio has no idempotency key: a request without an answer is in doubt until a receipt settles it, or until its list
    of messages does.
    """

    name = "twilio"
    channels = ("sms",)
    receipts = True
    replies = True
    reconciles = True
    #: https://www.twilio.com/docs/messaging/guides/accepted-mime-types
    takes = Takes(Carriage.FETCHED, _MEDIA_LIMIT, dict.fromkeys(Kind, 600_000) | {Kind.IMAGE: 5_000_000}, 5_000_000)
    options = (
        Option("account_sid", "the account's SID (AC and 32 hexadecimal digits)", required=True),
        Option("auth_token", "the account's auth token", required=True, secret=True),
        Option("from_number", "the sender in E.164, a short code or an alphanumeric sender"),
        Option("messaging_service_sid", "a messaging service instead of from_number (MG...)"),
        Option("base_url", "where the API is", default="https://api.twilio.com"),
    )
    message_options = {
        "media_url": "a URL or a list of up to 10 whose content is attached (MMS)",
        "validity_seconds": "how long Twilio may queue the message, 1 to 36000",
        "content_sid": "a content template instead of text (HX...)",
        "content_variables": "the template's variables, as a JSON text",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        account, token = settings["account_sid"], settings["auth_token"]
        self._base = self.base_url
        self._url = f"{self._base}/2010-04-01/Accounts/{account}/Messages.json"
        login = base64.b64encode(f"{account}:{token}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {login}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; one of the two kinds of sender is needed."""
        checked = super().check(settings)
        if bool(checked["from_number"]) == bool(checked["messaging_service_sid"]):
            raise InvalidOption("from_number", "give either from_number or messaging_service_sid")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Twilio takes 1 to 1600 characters of text, media, or a content template."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        media = [name for name in ("content_sid", "media_url") if outbound.options.get(name)]
        if media and outbound.attachments:
            refused[f"options.{media[0]}"] = "must not be given together with attachments"
        if media or outbound.attachments:
            refused.pop("text", None)
        elif not outbound.text:
            refused["text"] = "must not be empty: an SMS has no HTML"
        if len(outbound.text) > BODY_LIMIT:
            refused["text"] = f"must have at most {BODY_LIMIT} characters (Twilio's error 21617)"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """POST the message. Raises a ``SendError``."""
        rules.insist(rules.faults(outbound.options, _RULES))
        response = await self.http.request(
            "POST",
            self._url,
            headers=self._headers,
            body=urlencode(list(self._form(outbound))).encode(),
            timeout=self.call_seconds,
        )
        if not is_success(response):
            raise self._error(response)
        sid = json_object(response).get("sid")
        if not isinstance(sid, str) or not _SID.match(sid):
            raise unreadable(response)
        return Accepted(sid)

    async def find(self, outbound: Outbound, since: datetime) -> Accepted | None:
        """Look through all messages to this recipient. Raises a ``SendError`` where that does not tell.

        Not by their date of sending, as Twilio offers: what waits in its queue has none yet.
        """
        query = urlencode({"To": outbound.to, "PageSize": twilio_list.PAGE_SIZE})
        url, listed = f"{self._url}?{query}", list[twilio_list.Listed]()
        for _ in range(twilio_list.PAGES):
            response = await self.http.request("GET", url, headers=self._headers, timeout=self.call_seconds)
            if not is_success(response):
                raise self._error(response)
            found, following = twilio_list.read(json_object(response))
            listed += found
            if not following:
                # A messaging service may replace characters that would make the text longer ("smart encoding").
                differs = bool(self.settings.get("messaging_service_sid") or outbound.options.get("content_sid"))
                return twilio_list.judge(listed, outbound, since, text_may_differ=differs)
            url = self._base + following
        raise InDoubt("list_too_long", f"this recipient has more than {len(listed)} messages")

    def _form(self, outbound: Outbound) -> Iterator[tuple[str, str]]:
        yield "To", outbound.to
        sender = self.settings.get("messaging_service_sid")
        yield ("MessagingServiceSid", sender) if sender else ("From", self.settings["from_number"])
        if outbound.text:
            yield "Body", outbound.text
        media = _media(outbound.options.get("media_url"))
        yield from (("MediaUrl", url) for url in (*media, *(each.url for each in outbound.attachments)))
        for option, field in (
            ("validity_seconds", "ValidityPeriod"),
            ("content_sid", "ContentSid"),
            ("content_variables", "ContentVariables"),
        ):
            if outbound.options.get(option) is not None:
                yield field, str(outbound.options[option])
        if outbound.receipts_url:
            yield "StatusCallback", f"{outbound.receipts_url}?{urlencode({'message': outbound.message_id})}"

    def _error(self, response: HttpResponse) -> SendError:
        answer = json_error(response)
        code, detail = str(answer.get("code", "")), self.redact(str(answer.get("message", "")))
        error = Throttled if response.status == 429 else _CLASS_OF.get(code)
        if error is Throttled:
            return Throttled(code or "http_429", detail, retry_after=retry_after(response.headers))
        if error is RecipientRefused:
            return RecipientRefused(code, detail, suppress=code == _OPTED_OUT)
        return error(code, detail) if error else by_status(response, detail, code)

    def verify(self, request: InboundRequest) -> None:
        """Check ``X-Twilio-Signature``: https://www.twilio.com/docs/usage/security#validating-requests

        A proxy may have added or dropped the port, so the URL is tried with and without it. Raises
        ``Forged``.
        """
        given = request.headers.get("x-twilio-signature", "").encode(errors="replace")
        token = self.settings["auth_token"]
        try:
            form = _form_of(request) if request.method == "POST" else []
        except Unreadable as error:
            raise Forged("the body is not a form, so Twilio did not sign it") from error
        urls = _with_and_without_port(request.url)
        matches = [hmac.compare_digest(given, signature(token, url, form)) for url in urls]
        if not any(matches):
            raise Forged("X-Twilio-Signature does not match; is CHASKI_PUBLIC_URL what Twilio was given?")

    def parse(self, request: InboundRequest) -> list[Receipt | Reply]:
        """The one status that a callback tells (one that we do not know is kept as ``info``), or the one SMS that came in."""
        form = dict(_form_of(request))
        if "MessageStatus" not in form and form.get("SmsStatus") == "received":
            return [_reply(form)]
        sid, status = form.get("MessageSid") or form.get("SmsSid", ""), form.get("MessageStatus", "")
        code = form.get("ErrorCode", "")
        if not (_SID.match(sid) and _WORD.match(status) and (not code or _WORD.match(code))):
            raise Unreadable("a status callback holds MessageSid, MessageStatus and, for failures, ErrorCode")
        said = form.get("ChannelStatusMessage", "").replace("\x00", "")
        return [
            Receipt(
                event_id=f"{sid}:{status}:{code}",
                kind=_KINDS.get(status, ReceiptKind.INFO),
                provider_message_id=sid,
                message_id=our_id(request.query.get("message", "")),
                code=code,
                detail=said[:DETAIL_LIMIT] or status,
            )
        ]


def _reply(form: Mapping[str, str]) -> Reply:
    """https://www.twilio.com/docs/messaging/guides/webhook-request"""
    sid, sender = form.get("MessageSid") or form.get("SmsSid", ""), form.get("From", "")
    if not (_SID.match(sid) and sender):
        raise Unreadable("an incoming SMS holds MessageSid and From")
    urls = (form.get(f"MediaUrl{number}", "") for number in range(_MEDIA_LIMIT))
    return Reply(f"reply:{sid}", sender, form.get("Body", ""), files=tuple(url for url in urls if url))


def _media(value: object) -> list[str]:
    """The URLs, empty for anything else."""
    urls = [value] if isinstance(value, str) else value
    if not isinstance(urls, list) or len(urls) > _MEDIA_LIMIT or any(rules.text(url) or not url for url in urls):
        return []
    return urls


def signature(token: str, url: str, form: list[tuple[str, str]]) -> bytes:
    """Base64 of the HMAC-SHA1 of the URL and the form's names and values in order, as Twilio computes it."""
    text = url + "".join(name + value for name, value in sorted(set(form)))
    return base64.b64encode(hmac.new(token.encode(), text.encode(errors="replace"), hashlib.sha1).digest())


def _form_of(request: InboundRequest) -> list[tuple[str, str]]:
    try:
        return parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise Unreadable("the body is not a form") from error


def _with_and_without_port(url: str) -> list[str]:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    bare = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    port = host[len(bare) :] or {"https": ":443", "http": ":80"}.get(parts.scheme, "")
    return [urlunsplit(parts._replace(netloc=netloc)) for netloc in (bare, bare + port)]
