"""The HTTP vendors that the simulator plays: how each says yes and no.

Served by ``channels.simulator.server``. Paths and bodies are the vendors' own, below a prefix per vendor.
"""

from __future__ import annotations

import binascii
import json
import secrets
import socket
import struct
from base64 import b64decode
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from aiohttp import web

from channels.simulator.desk import Call, Desk
from channels.simulator.faults import Act, Fault
from channels.simulator.receipts import Postman, Told

#: Close with a reset, not with an ordinary end.
_RESET = struct.pack("ii", 1, 0)
_SENDING_METHODS = {"sendMessage", "sendPhoto", "sendDocument"}

_TWILIO_REFUSALS: dict[Act, tuple[int, int, str]] = {
    Act.THROTTLE: (429, 20429, "Too Many Requests"),
    Act.SERVER_ERROR: (500, 20500, "An internal server error has occurred"),
    Act.REFUSE_RECIPIENT: (400, 21211, "The 'To' number is not a valid phone number."),
    Act.REFUSE_CONTENT: (400, 21617, "The concatenated message body exceeds the 1600 character limit"),
    Act.REFUSE_LOGIN: (401, 20003, "Authenticate"),
}
_TELEGRAM_REFUSALS: dict[Act, tuple[int, str]] = {
    Act.THROTTLE: (429, "Too Many Requests: retry after 1"),
    Act.SERVER_ERROR: (500, "Internal Server Error"),
    Act.REFUSE_RECIPIENT: (403, "Forbidden: bot was blocked by the user"),
    Act.REFUSE_CONTENT: (400, "Bad Request: can't parse entities"),
    Act.REFUSE_LOGIN: (401, "Unauthorized"),
}
_WEBHOOK_REFUSALS: dict[Act, int] = {
    Act.THROTTLE: 429,
    Act.SERVER_ERROR: 500,
    Act.REFUSE_RECIPIENT: 410,
    Act.REFUSE_CONTENT: 422,
    Act.REFUSE_LOGIN: 401,
}


class Wires:
    """The handlers of the three HTTP vendors over one desk."""

    def __init__(self, desk: Desk, postman: Postman) -> None:
        self._desk = desk
        self._postman = postman
        self._telegram_ids = count(1)
        #: What Twilio's list shows, the newest first; the oldest are forgotten.
        self._twilio_kept: deque[dict[str, Any]] = deque(maxlen=100_000)

    def routes(self) -> list[web.RouteDef]:
        """Where each vendor is served."""
        return [
            web.post("/twilio/2010-04-01/Accounts/{sid}/Messages.json", self.twilio),
            web.get("/twilio/2010-04-01/Accounts/{sid}/Messages.json", self.twilio_list),
            web.post("/telegram/bot{token}/{method}", self.telegram),
            web.post("/webhook/{path:.*}", self.webhook),
            web.get("/ledger/summary", self.summary),
        ]

    async def twilio(self, request: web.Request) -> web.StreamResponse:
        """Twilio's Messages resource, with its status callbacks."""
        login = _basic_login(request)
        if login is None:
            return _twilio_refusal(*_TWILIO_REFUSALS[Act.REFUSE_LOGIN])
        body = await request.read()
        form = {name: values[-1] for name, values in parse_qs(body.decode()).items()}
        if not form.get("To") or not {"Body", "MediaUrl", "ContentSid"} & set(form):
            return _twilio_refusal(400, 21602, "A message needs To and Body")
        callback = form.get("StatusCallback", "")
        message_id = parse_qs(urlsplit(callback).query).get("message", [""])[0]
        call = Call("twilio", login[0], form["To"], message_id, body)
        fault = self._desk.fault_for(call)
        sid = "SM" + secrets.token_hex(16)
        if fault.kept:
            await self._desk.keep(call, sid)
            self._twilio_kept.appendleft(_twilio_message(sid, login[0], form))
            if callback:
                told = Told(callback, login[0], login[1], sid, call.recipient, form.get("From", ""))
                self._postman.tell(told, fault.receipts)
        return await self._answered(
            request,
            fault,
            yes=lambda: web.json_response(_twilio_message(sid, login[0], form), status=201),
            no=lambda: _twilio_refusal(*_TWILIO_REFUSALS[fault.act]),
        )

    async def twilio_list(self, request: web.Request) -> web.StreamResponse:
        """Twilio's list of messages, newest first: what was accepted, whatever its sender was told."""
        login = _basic_login(request)
        if login is None:
            return _twilio_refusal(*_TWILIO_REFUSALS[Act.REFUSE_LOGIN])
        asked = (login[0], request.query.get("To", ""))
        kept = [message for message in self._twilio_kept if (message["account_sid"], message["to"]) == asked]
        size, page = int(request.query.get("PageSize", "50")), int(request.query.get("Page", "0"))
        more = urlencode({**request.query, "Page": page + 1}) if len(kept) > size * (page + 1) else ""
        path = f"/2010-04-01/Accounts/{login[0]}/Messages.json"
        shown = kept[size * page : size * (page + 1)]
        return web.json_response({"messages": shown, "next_page_uri": f"{path}?{more}" if more else None})

    async def telegram(self, request: web.Request) -> web.StreamResponse:
        """The Bot API's sending methods."""
        bot, _, secret = request.match_info["token"].partition(":")
        if not bot.isdigit() or not secret or request.match_info["method"] not in _SENDING_METHODS:
            return _telegram_refusal(404, "Not Found")
        body = await request.read()
        asked = _json_object(body)
        if not asked.get("chat_id") or not (asked.get("text") or asked.get("photo") or asked.get("document")):
            return _telegram_refusal(400, "Bad Request: message text is empty")
        call = Call("telegram", bot, str(asked["chat_id"]), "", body)
        fault = self._desk.fault_for(call)
        number = next(self._telegram_ids)
        if fault.kept:
            await self._desk.keep(call, f"{call.recipient}:{number}")
        return await self._answered(
            request,
            fault,
            yes=lambda: web.json_response({"ok": True, "result": _telegram_message(number, asked)}),
            no=lambda: _telegram_refusal(*_TELEGRAM_REFUSALS[fault.act]),
        )

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        """Any endpoint of a service's own."""
        message_id = request.headers.get("webhook-id", "")
        call = Call("webhook", request.host, "/" + request.match_info["path"], message_id, await request.read())
        fault = self._desk.fault_for(call)
        if fault.kept:
            await self._desk.keep(call, "")
        return await self._answered(
            request,
            fault,
            yes=lambda: web.json_response({"received": True}),
            no=lambda: web.Response(status=_WEBHOOK_REFUSALS[fault.act], headers=_wait(fault.act)),
        )

    async def summary(self, request: web.Request) -> web.StreamResponse:
        """What happened since the start, in counts."""
        return web.json_response({**self._desk.summary(), "receipts": dict(self._postman.posted)})

    async def _answered(
        self,
        request: web.Request,
        fault: Fault,
        *,
        yes: Callable[[], web.Response],
        no: Callable[[], web.Response],
    ) -> web.Response:
        if fault.act is Act.ACCEPT:
            return yes()
        if fault.act is Act.RUBBISH:
            return web.Response(text="<html><body>It works!</body></html>", content_type="text/html")
        if fault.act not in (Act.HANG, Act.RESET):
            return no()
        if fault.act is Act.HANG:
            await self._desk.hang()
        _cut(request)
        return web.Response(status=500)


def _cut(request: web.Request) -> None:
    """End the connection by a reset, whatever had been read or written."""
    if request.transport is not None:
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        request.transport.abort()


def _wait(act: Act) -> dict[str, str]:
    return {"Retry-After": "1"} if act is Act.THROTTLE else {}


def _basic_login(request: web.Request) -> tuple[str, str] | None:
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    try:
        user, colon, password = b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if kind.lower() == "basic" and colon else None


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _twilio_message(sid: str, account: str, form: dict[str, str]) -> dict[str, Any]:
    return {
        "sid": sid,
        "account_sid": account,
        "to": form["To"],
        "from": form.get("From"),
        "messaging_service_sid": form.get("MessagingServiceSid"),
        "body": form.get("Body", ""),
        "status": "queued",
        "num_segments": "1",
        "direction": "outbound-api",
        "date_created": format_datetime(datetime.now(UTC)),
        "date_sent": None,
        "error_code": None,
        "error_message": None,
        "price": None,
        "uri": f"/2010-04-01/Accounts/{account}/Messages/{sid}.json",
    }


def _twilio_refusal(status: int, code: int, message: str) -> web.Response:
    more = f"https://www.twilio.com/docs/errors/{code}"
    headers = {"Retry-After": "1"} if status == 429 else {}
    answer = {"code": code, "message": message, "more_info": more, "status": status}
    return web.json_response(answer, status=status, headers=headers)


def _telegram_message(number: int, asked: dict[str, Any]) -> dict[str, Any]:
    return {"message_id": number, "date": 0, "chat": {"id": asked["chat_id"]}, "text": asked.get("text", "")}


def _telegram_refusal(status: int, description: str) -> web.Response:
    answer: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    if status == 429:
        answer["parameters"] = {"retry_after": 1}
    return web.json_response(answer, status=status)
