"""SMS through an SMSC by SMPP 3.4, which the gateway (`manage.py smpp`) speaks: https://smpp.org/SMPP_v3_4_Issue1_2.pdf

Used by the delivery engine and the receipts endpoint. An SMSC wants connections that stay open, few of them, so workers bring
their messages to the one process that has them (``channels.smpp_gateway``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from uuid import UUID

from channels import rules, smpp_reports, smpp_text
from channels.answers import by_status, is_success, unreadable
from channels.base import (
    Accepted,
    ContentRefused,
    Forged,
    InboundRequest,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotSent,
    Option,
    Outbound,
    Provider,
    Receipt,
    ReceiptKind,
    Reply,
    SendError,
    Throttled,
    Unreadable,
)
from channels.http import HttpClient, HttpResponse
from channels.reports import our_id
from channels.smpp_codes import SENDER_REFUSED, bind_refusal, refusal
from channels.smpp_gateway.exchange import (
    ACCOUNT_HEADER,
    SIGNATURE_HEADER,
    Address,
    Answer,
    NotSaid,
    Outcome,
    Purpose,
    Report,
    Submission,
    account_key,
    is_signed,
    read,
    signature,
    written,
)

#: Of ``call_seconds``: the gateway has answered before the worker stops waiting for it.
_GATEWAY_SHARE = 0.8
_BUSY_SECONDS = 1.0
_SECRET_LENGTH = 16
#: By SMPP 16, 9 and 13 octets with the end; some SMSCs take longer passwords.
_LENGTHS = {"system_id": 15, "password": 64, "system_type": 12}
_RANGES = {"port": 65_535, "binds": 8, "window": 500}
_WORD = re.compile(r"[\x21-\x7e]*")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]%-]{1,253}")
_TON_NPI = re.compile(r"[0-9]/[0-9]{1,2}")
_E164, _SHORT_CODE, _NAME = (
    re.compile(r"\+?[1-9][0-9]{8,14}"),
    re.compile(r"[0-9]{2,8}"),
    re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &._+-]{1,11}"),
)
_RULES: dict[str, rules.Rule] = {
    "from": lambda value: _sender_fault(value) if isinstance(value, str) else "must be a text",
    "validity_seconds": rules.whole(60, 604_800),
}


class Smpp(Provider):
    """The account's login at an SMSC, used by the gateway, which must run: `manage.py smpp`. SMPP has no key of ours, so a
    message without an answer is in doubt, until the answer comes late. A receipt is asked for the last part of a long text.
    """

    name = "smpp"
    channels = ("sms",)
    receipts = True
    replies = True
    options = (
        Option("host", "the SMSC's name or address", required=True),
        Option("port", "its port", default="2775"),
        Option("security", "tls (from the first byte) or none", default="none"),
        Option("system_id", "the login", required=True),
        Option("password", "the login's password", required=True, secret=True),
        Option("system_type", "where the vendor asks for one"),
        Option(
            "from", "the sender: +56912345678, a short code, or a name of up to 11 letters and digits", required=True
        ),
        Option(
            "from_ton_npi", "type and plan of the sender, such as 0/1, where the vendor wants others than are usual"
        ),
        Option(
            "gateway_secret",
            "16 or more characters of your choice: the gateway and Chaski sign with it",
            required=True,
            secret=True,
        ),
        Option("binds", f"connections at once, 1 to {_RANGES['binds']}, as many as the vendor allows", default="1"),
        Option("window", f"messages on each that wait for their answer, 1 to {_RANGES['window']}", default="10"),
        Option(
            "id_form",
            "same, or how answers and receipts write one id, such as hex/decimal; kept in decimal then",
            default="same",
        ),
        Option("base_url", "where the gateway listens", default="http://127.0.0.1:8377"),
    )
    message_options = {
        "from": "another sender than the account's",
        "validity_seconds": "how long the SMSC tries, one minute to seven days",
    }

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        self._url = f"{self.base_url}/submit"

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings, each in the form that SMPP has room for."""
        checked = super().check(settings)
        for name, most in _LENGTHS.items():
            if len(checked[name]) > most or not _WORD.fullmatch(checked[name]):
                raise InvalidOption(name, f"must have at most {most} ASCII characters and no blanks")
        for name, most in _RANGES.items():
            if not _is_whole(checked[name], most):
                raise InvalidOption(name, f"must be a whole number from 1 to {most}")
        faults = {
            "host": "" if _HOST.fullmatch(checked["host"]) else "must be a host name or an address",
            "security": "" if checked["security"] in ("tls", "none") else "must be tls or none",
            "from": _sender_fault(checked["from"]),
            "from_ton_npi": _ton_npi_fault(checked["from_ton_npi"]),
            "gateway_secret": ""
            if len(checked["gateway_secret"]) >= _SECRET_LENGTH
            else "must have 16 or more characters",
            "id_form": ""
            if checked["id_form"] in smpp_reports.ID_FORMS
            else f"must be {' or '.join(smpp_reports.ID_FORMS)}",
        }
        for name, fault in faults.items():
            if fault:
                raise InvalidOption(name, fault)
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Text only, of up to ten SMS: 1,530 characters of GSM's alphabet (some count twice), 670 of any other."""
        refused = super().refuse(outbound) | rules.faults(outbound.options, _RULES)
        if fault := _text_fault(outbound.text):
            refused["text"] = fault
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Bring the message to the gateway. Raises a ``SendError``."""
        rules.insist(self._faults(outbound))
        submission = self._submission(outbound)
        body = written(submission)
        headers = {
            "Content-Type": "application/json",
            ACCOUNT_HEADER: account_key(self.settings, outbound.receipts_url),
            SIGNATURE_HEADER: signature(self.settings["gateway_secret"], Purpose.SUBMIT, body),
        }
        response = await self.http.request("POST", self._url, headers=headers, body=body, timeout=self.call_seconds)
        if not is_success(response):
            raise by_status(response)
        return self._accepted(response, outbound, len(submission.parts))

    def _faults(self, outbound: Outbound) -> dict[str, str]:
        fault = _text_fault(outbound.text)
        return rules.faults(outbound.options, _RULES) | ({"text": fault} if fault else {})

    def _submission(self, outbound: Outbound) -> Submission:
        """With the parts numbered alike on every attempt, so that a repeat fills in what is missing on the phone."""
        text = smpp_text.cut(outbound.text, UUID(outbound.message_id).int & 0xFF)
        seconds = outbound.options.get("validity_seconds")
        return Submission(
            message_id=outbound.message_id,
            source=self._source(outbound.options.get("from")),
            destination=Address(outbound.to.removeprefix("+"), 1, 1),
            data_coding=text.data_coding,
            parts=text.parts,
            seconds=self.call_seconds * _GATEWAY_SHARE,
            validity="" if seconds is None else _relative(seconds),
        )

    def _source(self, given: str | None) -> Address:
        if given is None and self.settings["from_ton_npi"]:
            ton, _, npi = self.settings["from_ton_npi"].partition("/")
            return Address(self.settings["from"].removeprefix("+"), int(ton), int(npi))
        return _sender(given if given is not None else self.settings["from"])

    def _accepted(self, response: HttpResponse, outbound: Outbound, parts: int) -> Accepted:
        try:
            answer = read(response.body, Answer)
        except NotSaid:
            raise unreadable(response) from None
        if answer.outcome is not Outcome.ACCEPTED:
            raise _error(answer, outbound)
        found = smpp_reports.answered_id(answer.provider_message_id, self.settings["id_form"])
        return Accepted(found, f"{parts} parts" if parts > 1 else "")

    def verify(self, request: InboundRequest) -> None:
        """Check that the gateway signed the body with the account's secret. Raises ``Forged``."""
        given = request.headers.get(SIGNATURE_HEADER.lower(), "")
        if not is_signed(self.settings["gateway_secret"], Purpose.REPORT, request.body, given):
            raise Forged(f"{SIGNATURE_HEADER} does not match; only the SMPP gateway posts here")

    def parse(self, request: InboundRequest) -> list[Receipt | Reply]:
        """The one thing that the gateway reports: a receipt, what a person wrote, or an answer that came late."""
        try:
            report = read(request.body, Report)
        except NotSaid as error:
            raise Unreadable("the body is no report of the SMPP gateway") from error
        id_form = self.settings["id_form"]
        if report.delivered is not None and report.event:
            return [smpp_reports.read(report.delivered, report.event, id_form)]
        if report.taken is not None and our_id(report.taken.message_id):
            found = smpp_reports.answered_id(report.taken.provider_message_id, id_form)
            words = "the SMSC answered late that it has taken it"
            return [
                Receipt(
                    f"taken:{found}:{report.taken.message_id}",
                    ReceiptKind.SENT,
                    found,
                    report.taken.message_id,
                    detail=words,
                )
            ]
        raise Unreadable("a report tells of a delivery or of an answer")


def _error(answer: Answer, outbound: Outbound) -> SendError:
    """What an answer other than yes means."""
    if answer.outcome is Outcome.BIND_REFUSED:
        return bind_refusal(answer.status)
    if answer.outcome is Outcome.NOT_SENT:
        return NotSent(answer.code, answer.detail)
    if answer.outcome is Outcome.BUSY:
        # No try is lost and no breaker opens: the SMSC is there, and has as much as it takes at once.
        return Throttled(answer.code, answer.detail, retry_after=_BUSY_SECONDS)
    if answer.outcome is Outcome.IN_DOUBT:
        return InDoubt(answer.code, answer.detail)
    error = refusal(answer.status)
    if (
        isinstance(error, Misconfigured)
        and answer.status in SENDER_REFUSED
        and outbound.options.get("from") is not None
    ):
        # The message chose its sender; those of the account are as good as before.
        error = ContentRefused(error.code, error.detail)
    if not answer.taken:
        return error
    # A repeat sends the first parts twice, so it is for the account's policy to say whether there is one.
    return InDoubt("partly_taken", f"the SMSC took {answer.taken} of its parts and refused another: {error}")


def _text_fault(text: str) -> str:
    if fault := rules.text(text):
        return fault
    parts = smpp_text.count(text)
    if not text or parts > smpp_text.PARTS_LIMIT:
        limit = 153 if smpp_text.fits_gsm(text) else 67
        return f"must have 1 to {limit * smpp_text.PARTS_LIMIT:,} characters, which {smpp_text.PARTS_LIMIT} SMS have room for"
    return ""


def _sender(text: str) -> Address:
    """Type and plan as vendors expect them: international and E.164, network specific for a short code, alphanumeric."""
    if _SHORT_CODE.fullmatch(text):
        return Address(text, 3, 0)
    if _E164.fullmatch(text):
        return Address(text.removeprefix("+"), 1, 1)
    return Address(text, 5, 0)


def _sender_fault(text: str) -> str:
    fits = any(form.fullmatch(text) for form in (_E164, _SHORT_CODE, _NAME))
    return (
        "" if fits else "must be a number as +56912345678, a short code of 2 to 8 digits, or a name of up to 11 letters"
    )


def _ton_npi_fault(text: str) -> str:
    fits = not text or (_TON_NPI.fullmatch(text) and text.isascii())
    return "" if fits else "must be two numbers, such as 0/1: type of number and numbering plan"


def _is_whole(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most


def _relative(seconds: int) -> str:
    """SMPP's relative time, 7.1.1: years, months, days, hours, minutes, seconds."""
    minutes, left = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"0000{days:02}{hours:02}{minutes:02}{left:02}000R"
