"""Amazon SNS: what is signed and asked for, and what its codes mean."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
import time_machine
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from channels.base import (
    ContentRefused,
    InDoubt,
    InvalidOption,
    Misconfigured,
    NotSent,
    RecipientRefused,
    SendError,
    Throttled,
    Transient,
)
from channels.http import HttpClient, HttpResponse
from channels.sns import CODES, Sns
from tests.channels.http_contract import HttpContract
from tests.channels.wire import Server, answer, answers

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MESSAGE_ID = "567910cd-659e-55d4-8ccb-5aaf14679dc0"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
NAMESPACE = "http://sns.amazonaws.com/doc/2010-03-31/"
YES = f"""<PublishResponse xmlns="{NAMESPACE}">
  <PublishResult><MessageId>{MESSAGE_ID}</MessageId></PublishResult>
  <ResponseMetadata><RequestId>d74b8436-ae13-5ab4-a9ff-ce54dfea72a0</RequestId></ResponseMetadata>
</PublishResponse>"""
ENTITY = f'<!DOCTYPE a [<!ENTITY id "{MESSAGE_ID}">]>'
#: Successes that do not say what SNS documents.
ODD = {
    "an entity": f"{ENTITY}<a><MessageId>&id;</MessageId></a>".encode(),
    "an entity in UTF-16": f"{ENTITY}<a><MessageId>&id;</MessageId></a>".encode("utf-16"),
    "a document type": f"<!DOCTYPE a><a><MessageId>{MESSAGE_ID}</MessageId></a>".encode(),
    "no end": f"<a><MessageId>{MESSAGE_ID}</MessageId>".encode(),
    "no id": b"<a><MessageId></MessageId></a>",
    "an id with a blank": b"<a><MessageId>1234 5678</MessageId></a>",
    "another element": b"<a><Other/></a>",
    "a deep one": b"<a>" * 8_000 + b"</a>" * 8_000,
}

EXPECTED: dict[type[SendError], str] = {
    Throttled: "Throttling ThrottlingException Throttled KMSThrottling",
    Transient: "InternalError InternalFailure ServiceUnavailable",
    RecipientRefused: "InvalidParameter OptedOut",
    ContentRefused: "ParameterValueInvalid InvalidParameterValue ValidationError ValidationException MissingParameter",
    Misconfigured: "AuthorizationError AccessDenied AccessDeniedException NotAuthorized InvalidClientTokenId"
    " UnrecognizedClientException SignatureDoesNotMatch IncompleteSignature MissingAuthenticationToken InvalidSecurity"
    " RequestExpired ExpiredToken OptInRequired InvalidAction KMSAccessDenied KMSDisabled KMSInvalidState KMSNotFound"
    " KMSOptInRequired",
}
CASES = [(code, error) for error, codes in EXPECTED.items() for code in codes.split()]


def no(status: int, code: str, words: str = "so it is", *headers: str) -> bytes:
    """AWS's refusal."""
    said = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{words}</Message></Error>"
    body = f'<ErrorResponse xmlns="{NAMESPACE}">{said}<RequestId>7</RequestId></ErrorResponse>'
    return answer(status, body.encode(), *headers)


def header(request: bytes, name: str) -> str:
    [line] = [line for line in request.decode().split("\r\n") if line.startswith(f"{name}: ")]
    return line.partition(": ")[2]


class Noting(HttpClient):
    """Notes where a request would go, and has no network."""

    url = ""

    async def request(self, method: str, url: str, **_: Any) -> HttpResponse:
        """Never sent."""
        self.url = url
        raise NotSent("refused")


class TestSns(HttpContract):
    provider = Sns
    channel = "sms"
    to = "+56912345678"
    settings = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": SECRET, "region": "sa-east-1"}
    message = {"at": AT}
    accepted_body = YES.encode()
    provider_message_id = MESSAGE_ID

    async def asked(self, server: Server, http: HttpClient, text: str = "¡Hola!", **settings: str) -> bytes:
        """The request that one SMS becomes."""
        server.script = answers(self.accepted)
        await self.made(http, base_url=server.url, **settings).send(self.outbound(text=text))
        return server.requests[-1]

    async def test_a_text_goes_as_a_form(self, server: Server, http: HttpClient) -> None:
        head, _, body = (await self.asked(server, http, "¡Listo! 👋 a+b&c")).partition(b"\r\n\r\n")
        assert head.startswith(b"POST / HTTP/1.1\r\n")
        assert header(head, "Content-Type") == "application/x-www-form-urlencoded; charset=utf-8"
        assert dict(parse_qsl(body.decode(), strict_parsing=True)) == {
            "Action": "Publish",
            "Version": "2010-03-31",
            "PhoneNumber": "+56912345678",
            "Message": "¡Listo! 👋 a+b&c",
            "MessageAttributes.entry.1.Name": "AWS.SNS.SMS.SMSType",
            "MessageAttributes.entry.1.Value.DataType": "String",
            "MessageAttributes.entry.1.Value.StringValue": "Transactional",
        }

    async def test_the_sender_and_the_type_of_the_account_go_along(self, server: Server, http: HttpClient) -> None:
        request = await self.asked(server, http, sender_id="Shop", type="Promotional")
        form = dict(parse_qsl(request.partition(b"\r\n\r\n")[2].decode()))
        given = {
            form[f"MessageAttributes.entry.{number}.Name"]: form[f"MessageAttributes.entry.{number}.Value.StringValue"]
            for number in (1, 2)
        }
        assert given == {"AWS.SNS.SMS.SMSType": "Promotional", "AWS.SNS.SMS.SenderID": "Shop"}

    async def test_the_signature_is_of_the_given_time_not_of_this_machines(
        self, server: Server, http: HttpClient
    ) -> None:
        request = await self.asked(server, http)
        assert header(request, "X-Amz-Date") == "20260102T030405Z"
        assert re.fullmatch(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260102/sa-east-1/sns/aws4_request, "
            "SignedHeaders=content-type;host;x-amz-date, Signature=[0-9a-f]{64}",
            header(request, "Authorization"),
        )

    async def test_it_is_what_botocore_makes_of_the_request_as_it_was_sent(
        self, server: Server, http: HttpClient
    ) -> None:
        sent = await self.asked(server, http)
        names = ("Content-Type", "Host")
        theirs = AWSRequest(
            "POST", f"{server.url}/", {name: header(sent, name) for name in names}, sent.partition(b"\r\n\r\n")[2]
        )
        with time_machine.travel(AT, tick=False):
            SigV4Auth(Credentials("AKIAIOSFODNN7EXAMPLE", SECRET), "sns", "sa-east-1").add_auth(theirs)
        assert header(sent, "Authorization") == theirs.headers["Authorization"]

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({}, "https://sns.sa-east-1.amazonaws.com/"),
            ({"region": "us-gov-west-1"}, "https://sns.us-gov-west-1.amazonaws.com/"),
            ({"base_url": "http://127.0.0.1:5000/"}, "http://127.0.0.1:5000/"),
        ],
    )
    async def test_it_goes_to_the_region_unless_told_where(self, settings: dict[str, str], expected: str) -> None:
        nowhere = Noting()
        with pytest.raises(NotSent):
            await self.made(nowhere, **settings).send(self.outbound())
        assert nowhere.url == expected

    @pytest.mark.parametrize("base_url", ["https://[", "https:///2", "http://x:99999"])
    async def test_an_address_that_cannot_be_signed_is_the_accounts_fault(
        self, base_url: str, http: HttpClient
    ) -> None:
        with pytest.raises(Misconfigured) as caught:
            await self.at(base_url, http).send(self.outbound())
        assert caught.value.code == "invalid_url"

    @pytest.mark.parametrize(("code", "expected"), CASES)
    @pytest.mark.parametrize("status", [400, 403, 500])
    async def test_a_refusal_is_classed_by_its_code_whatever_the_status(
        self, code: str, expected: type[SendError], status: int, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(status, code)))
        assert (type(error), error.code) == (expected, code)
        assert error.detail.endswith(": so it is")

    def test_no_code_of_the_table_is_without_a_test(self) -> None:
        assert {code for code, _ in CODES.items()} == {code for code, _ in CASES}

    @pytest.mark.parametrize(("code", "suppressed"), [("OptedOut", True), ("InvalidParameter", False)])
    async def test_only_who_opted_out_gets_nothing_more(
        self, code: str, suppressed: bool, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(400, code)))
        assert isinstance(error, RecipientRefused)
        assert error.suppress is suppressed

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("Invalid parameter: PhoneNumber Reason: +1 is not valid to publish to", RecipientRefused),
            ("Phone number does not meet the E164 format", RecipientRefused),
            ("Invalid parameter: Message too long", ContentRefused),
            ("Invalid parameter: Empty message", ContentRefused),
        ],
    )
    async def test_a_wrong_number_and_a_wrong_text_have_one_code_and_other_words(
        self, words: str, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(400, "InvalidParameter", words)))
        assert (type(error), error.code) == (expected, "InvalidParameter")
        assert words in error.detail

    async def test_a_throttle_by_code_has_the_wait_of_its_header(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(400, "Throttling", "Rate exceeded", "Retry-After: 3")))
        assert isinstance(error, Throttled)
        assert error.retry_after == 3

    async def test_secrets_that_aws_repeats_are_blanked(self, server: Server, http: HttpClient) -> None:
        error = await self.failed(server, http, answers(no(403, "SignatureDoesNotMatch", f"bad {SECRET}")))
        assert error.detail.endswith("bad [secret]")

    @pytest.mark.parametrize(
        ("status", "expected"),
        [(400, ContentRefused), (403, Misconfigured), (404, Misconfigured), (503, Transient)],
    )
    async def test_a_code_that_is_in_no_table_is_shown_and_classed_by_its_status(
        self, status: int, expected: type[SendError], server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(no(status, "SomethingNew")))
        assert (type(error), error.code) == (expected, "SomethingNew")

    @pytest.mark.parametrize("kind", ODD)
    async def test_a_success_in_another_xml_is_in_doubt_and_no_entity_is_read(
        self, kind: str, server: Server, http: HttpClient
    ) -> None:
        error = await self.failed(server, http, answers(answer(200, ODD[kind])))
        assert (type(error), error.code) == (InDoubt, "unreadable_answer")

    async def test_a_refusal_that_declares_entities_is_classed_by_its_status(
        self, server: Server, http: HttpClient
    ) -> None:
        body = f"{ENTITY}<a><Error><Code>OptedOut</Code><Message>&id;</Message></Error></a>".encode()
        error = await self.failed(server, http, answers(answer(403, body)))
        assert (type(error), error.code) == (Misconfigured, "http_403")
        assert MESSAGE_ID not in error.detail

    async def test_the_namespace_of_an_answer_does_not_matter(self, server: Server, http: HttpClient) -> None:
        server.script = answers(answer(200, YES.replace(f' xmlns="{NAMESPACE}"', "").encode()))
        given = await self.at(server.url, http).send(self.outbound())
        assert given.provider_message_id == MESSAGE_ID

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("region", "Sao Paulo"),
            ("region", "evil.example/"),
            ("region", "us-east-1.evil"),
            ("type", "transactional"),
            ("sender_id", "A shop"),
            ("sender_id", "123"),
            ("sender_id", "TwelveLetter"),
        ],
    )
    def test_a_setting_that_aws_would_refuse_each_time_is_refused_once(self, name: str, value: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            Sns.check({**self.settings, name: value})
        assert caught.value.name == name

    @pytest.mark.parametrize("length", [0, 1601])
    def test_what_sns_would_refuse_is_refused_at_the_door(self, length: int) -> None:
        assert set(Sns.refuse(self.outbound(text="x" * length))) == {"text"}
        assert set(Sns.refuse(self.outbound(text="", html="<b>now</b>"))) == {"text"}
        assert Sns.refuse(self.outbound(text="x" * 1600)) == {}
