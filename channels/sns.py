"""SMS through Amazon SNS. https://docs.aws.amazon.com/sns/latest/api/API_Publish.html

Used by the delivery engine. SNS says with its answer only that it took a message; what became of it stands in CloudWatch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from yarl import URL

from channels.answers import by_status, is_success, retry_after, unreadable
from channels.base import (
    Accepted,
    ContentRefused,
    InvalidOption,
    Misconfigured,
    Option,
    Outbound,
    Provider,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.codes import Code, Codes
from channels.http import HttpClient, HttpResponse

#: Of one message, which goes in parts: https://docs.aws.amazon.com/sns/latest/dg/sms_publish-to-phone.html
TEXT_LIMIT = 1600
_VERSION = "2010-03-31"
_TYPES = ("Transactional", "Promotional")
#: It stands in the host's name.
_REGION = re.compile(r"[a-z]+(-[a-z0-9]+)+")
#: https://docs.aws.amazon.com/sns/latest/dg/sms_publish-to-phone.html: with a letter, without blanks.
_SENDER = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9-]{1,11}")
_MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{8,100}")
#: One code for a wrong number and a wrong text; only the words tell: "Invalid parameter: Message too long".
_ABOUT_THE_TEXT = re.compile("message", re.I)

#: Those of the action, and those that all of AWS has: https://docs.aws.amazon.com/sns/latest/api/CommonErrors.html
CODES = Codes(
    "https://docs.aws.amazon.com/sns/latest/api/API_Publish.html#API_Publish_Errors",
    {
        Throttled: {
            "Throttling": "the account sends faster than its limit in this region",
            "ThrottlingException": "the account sends faster than its limit in this region",
            "Throttled": "the account sends faster than its limit in this region",
            "KMSThrottling": "the key service takes no more requests for the moment",
        },
        Transient: {
            "InternalError": "SNS broke; it may have gone",
            "InternalFailure": "SNS broke; it may have gone",
            "ServiceUnavailable": "SNS is away for a moment",
        },
        RecipientRefused: {
            "InvalidParameter": "the number is not one that SNS sends to",
            "OptedOut": Code(
                RecipientRefused, "whoever has this number wants no messages from this account", suppress=True
            ),
        },
        ContentRefused: {
            "ParameterValueInvalid": "a parameter is not what SNS takes",
            "InvalidParameterValue": "a parameter is not what SNS takes",
            "ValidationError": "a parameter is not what SNS takes",
            "ValidationException": "a parameter is not what SNS takes",
            "MissingParameter": "a parameter is missing",
        },
        Misconfigured: {
            "AuthorizationError": "the access key lacks the permission sns:Publish",
            "AccessDenied": "the access key lacks the permission sns:Publish",
            "AccessDeniedException": "the access key lacks the permission sns:Publish",
            "NotAuthorized": "the access key lacks the permission sns:Publish",
            "InvalidClientTokenId": "there is no such access key, or it is not active",
            "UnrecognizedClientException": "there is no such access key, or it is not active",
            "SignatureDoesNotMatch": "the secret access key is wrong, or the region is",
            "IncompleteSignature": "the request is not signed as AWS wants it",
            "MissingAuthenticationToken": "the request is not signed as AWS wants it",
            "InvalidSecurity": "the request is not signed as AWS wants it, or went without TLS",
            "RequestExpired": "AWS finds the time of the request wrong; look at the database's clock",
            "ExpiredToken": "the access key is one for a short time, and has expired",
            "OptInRequired": "the AWS account is not signed up for this service or region",
            "InvalidAction": "the service at this address is not SNS; look at base_url",
            "KMSAccessDenied": "the access key may not use the encryption key",
            "KMSDisabled": "the encryption key is disabled",
            "KMSInvalidState": "the encryption key cannot be used as it is",
            "KMSNotFound": "there is no such encryption key",
            "KMSOptInRequired": "the access key is not signed up for the key service",
        },
    },
)


class Sns(Provider):
    """SNS takes no key of ours for an SMS and sends no receipts: a request without an answer stays in doubt."""

    name = "sns"
    channels = ("sms",)
    options = (
        Option(
            "access_key_id", "the access key of an IAM user with the permission sns:Publish (AKIA...)", required=True
        ),
        Option("secret_access_key", "the secret of that key", required=True, secret=True),
        Option("region", "the AWS region to send from, such as us-east-1", required=True),
        Option("sender_id", "the name that is shown as the sender, where the country allows one"),
        Option("type", "Transactional (reliable) or Promotional (cheap)", default="Transactional"),
        Option("base_url", "where the API is, unless at https://sns.REGION.amazonaws.com"),
    )

    def __init__(self, settings: Mapping[str, str], http: HttpClient) -> None:
        super().__init__(settings, http)
        region = settings["region"]
        self._url = f"{self.base_url or f'https://sns.{region}.amazonaws.com'}/"
        # Botocore takes a sixth of a second to import, and every process knows every provider: only who has such an account pays.
        auth, credentials = (import_module(f"botocore.{name}") for name in ("auth", "credentials"))
        key = credentials.Credentials(settings["access_key_id"], settings["secret_access_key"])
        self._signer = auth.SigV4Auth(key, "sns", region)
        self._unsigned = import_module("botocore.awsrequest").AWSRequest

    @classmethod
    def check(cls, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings; what would be refused with each message is refused here."""
        checked = super().check(settings)
        if not _REGION.fullmatch(checked["region"]):
            raise InvalidOption("region", "must be the code of a region, such as us-east-1")
        if checked["type"] not in _TYPES:
            raise InvalidOption("type", f"must be one of {', '.join(_TYPES)}")
        if checked["sender_id"] and not _SENDER.fullmatch(checked["sender_id"]):
            raise InvalidOption("sender_id", "must have 1 to 11 letters, digits or hyphens, and one letter at least")
        return checked

    @classmethod
    def refuse(cls, outbound: Outbound) -> dict[str, str]:
        """Text only, 1 to 1,600 characters."""
        refused = super().refuse(outbound)
        if not 0 < len(outbound.text) <= TEXT_LIMIT:
            refused["text"] = f"must have 1 to {TEXT_LIMIT:,} characters; an SMS has no HTML part"
        return refused

    async def send(self, outbound: Outbound) -> Accepted:
        """Publish to the number ``to``. Raises a ``SendError``."""
        body = urlencode(list(self._form(outbound))).encode()
        response = await self.http.request(
            "POST", self._url, headers=self._signed(body, outbound.at), body=body, timeout=self.call_seconds
        )
        if not is_success(response):
            raise self._error(response)
        found = _text(_document(response.body), "MessageId")
        if not _MESSAGE_ID.fullmatch(found):
            raise unreadable(response)
        return Accepted(found)

    def _form(self, outbound: Outbound) -> Iterator[tuple[str, str]]:
        yield from (("Action", "Publish"), ("Version", _VERSION))
        yield from (("PhoneNumber", outbound.to), ("Message", outbound.text))
        attributes = {"SMSType": self.settings["type"], "SenderID": self.settings["sender_id"]}
        given = [(name, value) for name, value in attributes.items() if value]
        for number, (name, value) in enumerate(given, 1):
            entry = f"MessageAttributes.entry.{number}"
            yield f"{entry}.Name", f"AWS.SNS.SMS.{name}"
            yield f"{entry}.Value.DataType", "String"
            yield f"{entry}.Value.StringValue", value

    def _signed(self, body: bytes, at: datetime) -> dict[str, str]:
        """The headers of a POST of ``body``, signed by Signature Version 4. Raises ``Misconfigured``.

        Not by botocore's ``add_auth``: that takes the time of this machine's clock, and AWS refuses one that is wrong.
        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
        """
        stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "X-Amz-Date": stamp}
        try:
            host = URL(self._url).host_port_subcomponent or ""  # as channels.http writes it
            request = self._unsigned("POST", self._url, headers={**headers, "Host": host}, data=body)
            request.context["timestamp"] = stamp
            return {**headers, "Authorization": self._authorization(request)}
        except ValueError:
            raise Misconfigured(
                "invalid_url", "the URL to sign cannot be read; look at the account's base_url"
            ) from None

    def _authorization(self, request: Any) -> str:
        signer = self._signer
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        signed = signer.signed_headers(signer.headers_to_sign(request))
        return f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={signed}, Signature={signature}"

    def _error(self, response: HttpResponse) -> SendError:
        answer = _document(response.body)
        code, said = _text(answer, "Code"), self.redact(_text(answer, "Message"))
        if code == "InvalidParameter" and _ABOUT_THE_TEXT.search(said):
            return ContentRefused(code, said)
        return CODES.error(code, said, retry_after=retry_after(response.headers)) or by_status(response, said, code)


def _document(body: bytes) -> ElementTree.Element | None:
    """The XML; None for what is none, and for one that declares entities, which could stand for more than memory holds.

    Read as UTF-8, as SNS writes it: a declaration in another encoding would not be seen.
    """
    try:
        text = body.decode()
        return None if "<!DOCTYPE" in text or "<!ENTITY" in text else ElementTree.fromstring(text)  # noqa: S314
    except (ValueError, ElementTree.ParseError):
        return None


def _text(document: ElementTree.Element | None, name: str) -> str:
    """What the first element of that name holds, in whatever namespace; empty where there is none."""
    return "" if document is None else document.findtext(f".//{{*}}{name}", "").strip()
