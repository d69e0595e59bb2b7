"""Direct messages on X. https://docs.x.com/x-api/direct-messages/manage/introduction

Used by the delivery engine and the receipts endpoint.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from oauthlib import oauth1  # type: ignore[import-untyped]

from channels import rules
from channels.answers import (
    by_status,
    is_success,
    json_error,
    json_object,
    retry_after,
    unreadable,
    wait_seconds,
)
from channels.base import (
    DETAIL_LIMIT,
    Accepted,
    ContentRefused,
    Forged,
    InboundRequest,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    Reply,
    SendError,
    Throttled,
    Transient,
    Unreadable,
)
from channels.codes import Code, Codes
from channels.http import HttpClient, HttpResponse
from channels.rates import Rate, Rates
from channels.reports import moment

TEXT_LIMIT = 10_000
_ID = re.compile(r"[0-9]{1,19}")
_QUARTER_HOUR = 900.0
#: What X counts in, each with its ``-remaining`` and ``-reset``. Those of a day are on no page of X's, only in its answers.
_WINDOWS = ("x-rate-limit", "x-user-limit-24hour", "x-app-limit-24hour")
#: A 403 without a code is about the app or about the person, and only its words tell: "You do not have permission to DM one
#: or more participants."
_PERSON = re.compile(r"participant|recipient|this user|operation is not permitted", re.I)
#: The same secret signs tokens and reports in the same way. What reads as a report is no token, or whoever sent it as
#: one would be told its signature.
_TOKEN = re.compile(r"[A-Za-z0-9+/=_.-]{1,256}")
#: What a report holds at its top. https://docs.x.com/x-api/account-activity/introduction
_REPORTED = ("for_user_id", "user_event", "data")

CODES = Codes(
    "https://docs.x.com/x-api/fundamentals/response-codes-and-errors",
    {
        Throttled: {"88": Code(Throttled, "the account has used up what it may send for now", wait=_QUARTER_HOUR)},
        Transient: {"130": "X is overloaded", "131": "X broke; it may have been sent"},
        RecipientRefused: {
            "not-authorized-for-resource": "this person cannot be written to by this account",
            "resource-not-found": "there is no such user",
            "50": "there is no such user",
            "63": "the user's account is suspended",
            "108": "there is no such user",
            "150": "this person takes messages only from accounts that they follow",
            "349": "this person takes no messages from this account",
        },
        ContentRefused: {
            "invalid-request": "a parameter is not what X takes",
            "151": "X could not send it, for a reason of its own",
            "226": "X takes it for an automated message or spam",
            "354": "it is too long",
        },
        Misconfigured: {
            "usage-capped": "what the app may use in this period is spent; raise its cap or wait for the next period",
            "credits": "the app's credits are spent",
            "client-forbidden": "the app may not do this; look at its project and its access level",
            "oauth1-permissions": "the app lacks the permission for direct messages; grant it and make a new access token",
            "unsupported-authentication": "this needs the keys of an app and the token of a user (OAuth 1.0a)",
            "32": "a key, a token or a secret is wrong",
            "64": "the account that sends is suspended",
            "87": "the app may not do this",
            "89": "the access token is not valid, or was withdrawn",
            "99": "the keys of the app are wrong",
            "135": "X finds the time of the request wrong; look at the database's clock",
            "215": "the request is not signed as X wants it",
            "220": "the access token may not do this",
            "261": "the app may only read; look at its permissions",
            "326": "the account that sends is locked; somebody must log in to X and unlock it",
            "416": "the app is suspended",
            "453": "the app's access level does not hold direct messages",
        },
    },
)


class X(Provider):
    """X takes no key of ours: a request without an answer stays in doubt. What it posts to the account's address is checked
    and moves no message, for X does not tell what became of one."""

    name = "x"
    channels = ("x",)
    replies = True
    #: https://docs.x.com/x-api/fundamentals/rate-limits; this is also its 1,440 in a day.
    usual_rates = Rates(Rate(15, _QUARTER_HOUR))
    options = (
        Option("consumer_key", "the app's API key (consumer key)", required=True),
        Option(
            "consumer_secret", "the app's API key secret, which also signs what X posts", required=True, secret=True
        ),
        Option("access_token", "the access token of the account that writes", required=True, secret=True),
        Option("access_token_secret", "the secret of that token", required=True, secret=True),
        Option("base_url", "where the API is", default="https://api.x.com"),
    )

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._url = f"{self.base_url}/2/dm_conversations/with"

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Text only, 1 to 10,000 characters, to a user by their numeric id."""
        refused = super().refuse(outbound) | _faults(outbound)
        if not 0 < len(outbound.text) <= TEXT_LIMIT:
            refused["text"] = f"must have 1 to {TEXT_LIMIT:,} characters; X has no HTML part"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Write to the user ``to``. Raises a ``SendError``."""
        rules.insist(_faults(outbound))
        url = f"{self._url}/{outbound.to}/messages"
        response = await self.http.request(
            "POST",
            url,
            headers={"Authorization": self._authorization(url, outbound.at), "Content-Type": "application/json"},
            body=json.dumps({"text": outbound.text}).encode(),
            timeout=self.call_seconds,
        )
        if not is_success(response):
            raise self._error(response, outbound.at)
        return self._accepted(response, outbound.at)

    def _authorization(self, url: str, at: datetime) -> str:
        """The header of OAuth 1.0a; a body of JSON is not signed. Raises ``Misconfigured``.

        https://docs.x.com/resources/fundamentals/authentication/oauth-1-0a/authorizing-a-request
        """
        client = oauth1.Client(
            self.settings["consumer_key"],
            client_secret=self.settings["consumer_secret"],
            resource_owner_key=self.settings["access_token"],
            resource_owner_secret=self.settings["access_token_secret"],
            timestamp=str(int(at.timestamp())),
        )
        try:
            _, headers, _ = client.sign(url, "POST")
        except ValueError:
            raise Misconfigured(
                "invalid_url", "the URL to sign cannot be read; look at the account's base_url"
            ) from None
        return str(headers["Authorization"])

    def _accepted(self, response: HttpResponse, at: datetime) -> Accepted:
        """A success may hold data and errors; with data the message was sent, and the errors are about something beside it."""
        answer = json_object(response)
        data, said = answer.get("data"), self.redact(_words(answer))
        event = data.get("dm_event_id") if isinstance(data, dict) else None
        if isinstance(event, str) and _ID.fullmatch(event):
            return Accepted(event, said[:DETAIL_LIMIT], _rest(response.headers, at))
        raise CODES.error(_code(answer), said) or unreadable(response)

    def _error(self, response: HttpResponse, at: datetime) -> SendError:
        answer = json_error(response)
        code, said = _code(answer), self.redact(_words(answer))
        wait = _wait(response.headers, at)
        known = CODES.error(code, said, retry_after=wait)
        if known is not None:
            return known
        if response.status == 429:
            return Throttled(code or "http_429", said, retry_after=wait)
        # A 404 that X did not write is about base_url.
        if (response.status == 403 and _PERSON.search(said)) or (response.status == 404 and "title" in answer):
            return RecipientRefused(code or f"http_{response.status}", said)
        return by_status(response, said, code)

    def greet(self, request: InboundRequest) -> bytes | None:
        """X asks by GET, again and again, whether the address is ours: its token comes back signed. Raises ``Forged``.

        https://docs.x.com/x-api/webhooks/introduction
        """
        if request.method != "GET":
            return None
        token = request.query.get("crc_token", "")
        if not _TOKEN.fullmatch(token):
            raise Forged("a GET that holds no crc_token of X's")
        return json.dumps({"response_token": self._signature(token.encode())}).encode()

    def verify(self, request: InboundRequest) -> None:
        """Check ``x-twitter-webhooks-signature``: the HMAC-SHA256 of the raw body by the consumer secret. Raises ``Forged``."""
        given = request.headers.get("x-twitter-webhooks-signature", "").encode(errors="replace")
        if not hmac.compare_digest(given, self._signature(request.body).encode()):
            raise Forged(
                "x-twitter-webhooks-signature does not match; is consumer_secret that of the app which reports?"
            )

    def parse(self, request: InboundRequest) -> list[Reply]:
        """What people write; none of X's events says what became of a message. Raises ``Unreadable`` for what is no event."""
        try:
            report = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            raise Unreadable("the body is not JSON") from error
        if not isinstance(report, dict) or not any(name in report for name in _REPORTED):
            raise Unreadable(f"a report of X's is an object with one of {', '.join(_REPORTED)}")
        events, own = report.get("direct_message_events"), str(report.get("for_user_id"))
        found = (_reply(each, own) for each in events if isinstance(each, dict)) if isinstance(events, list) else ()
        return [reply for reply in found if reply is not None]

    def _signature(self, data: bytes) -> str:
        digest = hmac.new(self.settings["consumer_secret"].encode(), data, hashlib.sha256).digest()
        return f"sha256={base64.b64encode(digest).decode()}"


def _faults(outbound: Outbound) -> dict[str, str]:
    return {} if _ID.fullmatch(outbound.to) else {"to": "must be the numeric id of a user, 1 to 19 digits"}


def _reply(event: Mapping[str, Any], own: str) -> Reply | None:
    """One message of a person; None for the account's own, which are reported too, and for other events."""
    made = event.get("message_create")
    made = made if isinstance(made, dict) else {}
    sender, said = made.get("sender_id"), made.get("message_data")
    if not isinstance(event.get("id"), str) or not _ID.fullmatch(str(sender)) or sender == own:
        return None
    text = said.get("text") if isinstance(said, dict) else ""
    at = moment(event.get("created_timestamp"), per_second=1000)
    return Reply(f"reply:{event['id'][:300]}", str(sender), text if isinstance(text, str) else "", at=at)


def _first(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    errors = answer.get("errors")
    return errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}


def _code(answer: Mapping[str, Any]) -> str:
    """The number of an error in the older form, or the last word of a problem's type; empty where it has none."""
    first = _first(answer)
    if "code" in first:
        return str(first["code"])
    return str(answer.get("type") or first.get("type") or "").partition("/problems/")[2]


def _words(answer: Mapping[str, Any]) -> str:
    first = _first(answer)
    found = (first.get("message"), answer.get("detail"), first.get("detail"), answer.get("title"))
    return next((str(words) for words in found if words), "")


def _rest(headers: Mapping[str, str], at: datetime) -> float | None:
    """Seconds from ``at`` until every window that is used up begins anew; None where none of them is."""
    spent = [end for window, end in _ends(headers).items() if headers.get(f"{window}-remaining") == "0"]
    return wait_seconds((max(spent) - at).total_seconds()) if spent else None


def _wait(headers: Mapping[str, str], at: datetime) -> float | None:
    """The same for a throttle, whose answer may not say which window it was."""
    rest, first = _rest(headers, at), next(iter(_ends(headers).values()), None)
    if rest is None and first is not None:
        return wait_seconds((first - at).total_seconds())
    return rest if rest is not None else retry_after(headers)


def _ends(headers: Mapping[str, str]) -> dict[str, datetime]:
    """When each window that the answer tells of begins anew."""
    return {window: end for window in _WINDOWS if (end := moment(headers.get(f"{window}-reset", "")))}
