"""E-mail through the HTTP APIs of e-mail service providers (ESPs), as django-anymail knows them. https://anymail.dev

Used by the delivery engine and the receipts endpoint. Anymail writes each ESP's request and reads its answer; between the two
the request goes over ``channels.http``. Anymail's own way (requests) would block a thread, cannot say whether a request had left,
waits without an end for an answer that drips, and follows redirects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.encoders import encode_base64
from email.mime.base import MIMEBase
from importlib import import_module
from io import BytesIO
from typing import Any

from anymail.exceptions import AnymailError, AnymailInvalidAddress, AnymailUnsupportedFeature
from anymail.message import AnymailMessage
from requests import PreparedRequest, Request, RequestException, Response

from channels import anymail_receipts, email_message, rules
from channels.answers import by_status, is_success, retry_after, unreadable, wait_seconds
from channels.anymail_esps import ESPS
from channels.attachments import Attachment, Carriage, Kind, Takes
from channels.base import (
    Accepted,
    ContentRefused,
    InboundRequest,
    InvalidOption,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    Receipt,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.email_message import Letterhead, Mailbox, mailbox
from channels.email_parts import content_of
from channels.http import HttpClient, HttpResponse
from channels.rates import Rates

#: What anymail's readers raise over an answer that is not what the ESP documents.
_UNREADABLE = (AnymailError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
#: What an ESP may say of a recipient in an answer that is a success otherwise.
_REFUSALS: Mapping[str, type[SendError]] = {
    "invalid": RecipientRefused,
    "rejected": RecipientRefused,
    "failed": Transient,
}


class Anymail(Provider):
    """One account at an e-mail service provider, by its HTTP API. Where the ESP keeps a reference of ours, our id goes along and
    comes back with its reports. Resend drops a repeat within a day; a mail waits longer, so nothing relies on it.
    """

    name = "anymail"
    channels = ("email",)
    receipts = True
    options = (
        Option("esp", f"whose API it is: {', '.join(ESPS)}", required=True),
        Option(
            "api_key", "the account's key, by whatever name: API key or token, server token", required=True, secret=True
        ),
        Option("from_email", "the sender that people see: an address, or Name <address>", required=True),
        Option("reply_to", "where answers go, if not to the sender"),
        Option("secret_key", "mailjet: the secret that belongs to the API key", secret=True),
        Option("project_id", "scaleway: the project's id"),
        Option("sender_domain", "mailgun: the domain that sends, if not the sender's"),
        Option("webhook_secret", "user:password, as in the address for receipts that the ESP was given", secret=True),
        Option(
            "signing_key",
            "what receipts are signed with: mailersend, mailgun, mailtrap, mandrill, postal, resend",
            secret=True,
        ),
        Option("base_url", "where the API is, if not where anymail knows it; postal and unisender_go need it"),
    )
    message_options = email_message.MESSAGE_OPTIONS
    #: The least of them takes 10 MB for a whole mail: https://postmarkapp.com/support/article/1056
    takes = Takes(Carriage.ENCLOSED, 20, dict.fromkeys(Kind, 7_000_000), 7_000_000)

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._esp = ESPS[settings["esp"]]
        sender = mailbox(settings["from_email"])
        self._head = Letterhead(
            sender, sender.domain, mailbox(settings["reply_to"]) if settings.get("reply_to") else None
        )
        self._backend = _backend(settings)

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; the ESP must be one that is known here, with all that it needs."""
        checked = super().check(settings)
        esp = ESPS.get(checked["esp"])
        if esp is None:
            raise InvalidOption(
                "esp", f"must be one of {', '.join(ESPS)}; Amazon SES and SendGrid take SMTP (provider smtp)"
            )
        for name in esp.needs:
            if not checked[name]:
                raise InvalidOption(name, f"{checked['esp']} needs it")
        if re.search("[{}]", checked["base_url"]):
            raise InvalidOption("base_url", "must not hold braces")
        if checked["webhook_secret"] and ":" not in checked["webhook_secret"]:
            raise InvalidOption("webhook_secret", "must be user:password")
        _check_addresses(checked)
        return checked

    @classmethod
    def rates(cls, settings: Mapping[str, str]) -> Rates:
        """What is given, or what the ESP is known to allow."""
        given, esp = super().rates(settings), ESPS.get(settings.get("esp", ""))
        return given if settings.get("rate") or esp is None else Rates(esp.rate, given.recipient)

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """What cannot stand in a mail: line breaks in headers, headers of our own, half characters."""
        return super().refuse(outbound) | email_message.faults(outbound)

    async def send(self, outbound: Outbound) -> Accepted:
        """Hand the mail to the ESP. Raises a ``SendError``."""
        rules.insist(email_message.faults(outbound))
        message = self._message(outbound)
        for each in outbound.attachments:
            message.attach(_part(each, await content_of(each)))
        payload, request = self._request(message, outbound)
        response = await self.http.request(
            request.method or "POST",
            request.url or "",
            headers=_headers(request),
            body=_body(request),
            timeout=self.call_seconds,
        )
        if not is_success(response):
            raise self._error(response, outbound)
        return self._accepted(response, payload, message, outbound)

    def greet(self, request: InboundRequest) -> bytes | None:
        """Nothing in particular, where the ESP tries the address."""
        return b"" if self._esp.tries_address and request.method == "GET" else None

    def verify(self, request: InboundRequest) -> None:
        """By the ESP's signature, where it has one, and by the login in the address. Raises ``Forged``."""
        anymail_receipts.verify(self.settings, request)

    def parse(self, request: InboundRequest) -> list[Receipt]:
        """What the ESP tells, of any number of mails. Raises ``Unreadable``."""
        return anymail_receipts.parse(self.settings, request)

    def _message(self, outbound: Outbound) -> AnymailMessage:
        asked = outbound.options.get("reply_to")
        reply_to = mailbox(asked) if asked else self._head.reply_to
        message = AnymailMessage(
            subject=outbound.subject,
            body=outbound.text or outbound.html,
            from_email=_written(self._head.sender),
            to=[_recipient(outbound.to).address],
            reply_to=[_written(reply_to)] if reply_to else None,
            headers=self._mail_headers(outbound),
            **_echoed(self._esp.echo, outbound.message_id),
        )
        if not outbound.text:
            message.content_subtype = "html"
        elif outbound.html:
            message.attach_alternative(outbound.html, "text/html")
        return message

    def _mail_headers(self, outbound: Outbound) -> dict[str, str]:
        own = {"Message-ID": self._head.message_id(outbound)} if self._esp.keeps_message_id else {}
        return own | email_message.unsubscribe_headers(outbound) | (outbound.options.get("headers") or {})

    def _request(self, message: AnymailMessage, outbound: Outbound) -> tuple[Any, PreparedRequest]:
        """Anymail's payload, which it wants back with the answer, and what is to be written."""
        try:
            payload = self._backend.build_message_payload(message, self._backend.send_defaults)
            asked = payload.get_request_params(self._backend.api_url)
            if self._esp.repeat_header:
                asked["headers"] = {**asked["headers"], self._esp.repeat_header: outbound.message_id}
            return payload, Request(**asked).prepare()
        except AnymailInvalidAddress as error:
            raise RecipientRefused("invalid_address", self._shown(str(error.args[0]), outbound)) from None
        except AnymailUnsupportedFeature as error:
            raise ContentRefused("unsupported", self._shown(str(error.args[0]), outbound)) from None
        except (AnymailError, RequestException, ValueError) as error:
            text = f"no request can be made with this account ({type(error).__name__}); look at api_key and base_url"
            raise Misconfigured("invalid_request", text) from None

    def _accepted(self, response: HttpResponse, payload: Any, message: AnymailMessage, outbound: Outbound) -> Accepted:
        try:
            found = self._backend.parse_recipient_status(_as_requests(response), payload, message)
            [status] = found.values()
        except _UNREADABLE:
            raise self._known(response, outbound) or unreadable(response) from None
        refusal = _REFUSALS.get(status.status)
        if refusal:
            said = self._shown(self._esp.told(response.body)[1], outbound)
            raise self._known(response, outbound) or refusal(status.status, said)
        if not status.message_id:
            raise unreadable(response)
        return Accepted(str(status.message_id))

    def _error(self, response: HttpResponse, outbound: Outbound) -> SendError:
        code, said = self._esp.told(response.body)
        if response.status == 429 and code not in self._esp.codes:
            return Throttled(code or "http_429", self._shown(said, outbound), retry_after=self._wait(response))
        return self._known(response, outbound) or by_status(response, self._shown(said, outbound), code)

    def _known(self, response: HttpResponse, outbound: Outbound) -> SendError | None:
        code, said = self._esp.told(response.body)
        return self._esp.codes.error(code, self._shown(said, outbound), retry_after=self._wait(response))

    def _wait(self, response: HttpResponse) -> float | None:
        asked = retry_after(response.headers)
        reset = response.headers.get(self._esp.wait_header, "") if self._esp.wait_header else ""
        return wait_seconds(int(reset[:12])) if asked is None and reset.isascii() and reset.isdigit() else asked

    def _shown(self, text: str, outbound: Outbound) -> str:
        """An ESP's words without our secrets and without the address, which it repeats, some in lower case."""
        return re.sub(re.escape(outbound.to), "[recipient]", self.redact(text), flags=re.IGNORECASE)


def _part(attachment: Attachment, content: bytes) -> MIMEBase:
    """A file as anymail reads it."""
    part = MIMEBase(*attachment.content_type.split("/", 1))
    part.set_payload(content)
    encode_base64(part)
    shown = "inline" if attachment.content_id else "attachment"
    part.add_header("Content-Disposition", shown, filename=("utf-8", "", attachment.name))
    if attachment.content_id:
        part["Content-ID"] = f"<{attachment.content_id}>"
    return part


def _backend(settings: Mapping[str, str]) -> Any:
    """Anymail's e-mail backend for the account; it reads nothing from Django's settings that is given here."""
    esp = ESPS[settings["esp"]]
    ours = {esp.key: "api_key", "api_url": "base_url", **{name: name for name in esp.also}}
    given = {theirs: settings.get(name, "") for theirs, name in ours.items()}
    backend = import_module(f"anymail.backends.{settings['esp']}").EmailBackend
    return backend(**{name: value for name, value in given.items() if value})


def _check_addresses(checked: Mapping[str, str]) -> None:
    for name in ("from_email", "reply_to"):
        try:
            found = mailbox(checked[name]) if checked[name] else None
        except ValueError as error:
            raise InvalidOption(name, str(error)) from error
        if found and not found.ascii:
            raise InvalidOption(name, "must be an address that every mail server can take (ASCII before the @)")


def _recipient(to: str) -> Mailbox:
    try:
        return mailbox(to)
    except ValueError as error:
        raise RecipientRefused("invalid_address", str(error)) from None


def _written(found: Mailbox) -> str:
    return str(found.header())


def _echoed(where: str, message_id: str) -> dict[str, Any]:
    """Our id, as the ESP takes a reference."""
    if where == "metadata":
        return {"metadata": {anymail_receipts.REFERENCE: message_id}}
    return {where: [message_id]} if where else {}


def _headers(request: PreparedRequest) -> dict[str, str]:
    """Without the length, which the client writes itself."""
    return {name: str(value) for name, value in request.headers.items() if name.lower() != "content-length"}


def _body(request: PreparedRequest) -> bytes:
    """A form or JSON, which are texts; what has attachments would be bytes."""
    return request.body if isinstance(request.body, bytes) else str(request.body or "").encode()


def _as_requests(response: HttpResponse) -> Response:
    """The answer in the form that anymail reads."""
    told = Response()
    told.status_code = response.status
    told.headers.update(response.headers)
    told.encoding = "utf-8"  # else it is guessed from the bytes, which takes long
    told.raw = BytesIO(response.body)
    return told
