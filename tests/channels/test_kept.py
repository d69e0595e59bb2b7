"""Files that vendors keep: WhatsApp and Messenger are given one before, Telegram with the first message that has it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from typing import Any

import pytest

from channels.attachments import Attachment
from channels.base import Accepted, ContentRefused, InDoubt, InvalidOption
from channels.http import HttpClient
from channels.kept import MediaId
from channels.whatsapp_cloud import WhatsAppCloud
from tests.channels.contract import ProviderContract, Remembering, attachment
from tests.channels.test_graph_messages import TestMessenger as MessengerCase
from tests.channels.test_telegram import TestTelegram as TelegramCase
from tests.channels.test_whatsapp_cloud import TestWhatsAppCloud as WhatsAppCase
from tests.channels.wire import Server, answer, in_turn

CONTENT = bytes(range(256))
MEDIA_PARAMETER = "Param document['id'] is not a valid whatsapp business account media attachment ID"


def yes(**fields: Any) -> bytes:
    """A vendor's success."""
    return answer(200, json.dumps(fields).encode())


def no(code: int, message: str) -> bytes:
    """Meta's refusal."""
    return answer(400, json.dumps({"error": {"message": message, "code": code}}).encode())


def file(keeper: Remembering, content_type: str = "application/pdf", name: str = "guía.pdf") -> Attachment:
    async def read() -> bytes:
        return CONTENT

    return replace(attachment(content_type, name=name), read=read, keeper=keeper)


def asked(server: Server) -> list[tuple[str, Any]]:
    """Path and body of each request, forms as their fields by name."""
    return [_asked(*request.partition(b"\r\n\r\n")[::2]) for request in server.requests]


def _asked(head: bytes, body: bytes) -> tuple[str, Any]:
    path = head.split()[1].decode()
    if b"multipart/form-data" not in head:
        return path, json.loads(body)
    form = message_from_bytes(head.partition(b"\r\n")[2] + b"\r\n\r\n" + body, policy=policy.HTTP)
    return path, {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}  # type: ignore[attr-defined]


async def send(
    case: type[ProviderContract], server: Server, http: HttpClient, keeper: Remembering, **more: Any
) -> Accepted:
    """One message with the file."""
    provider = case.made(http, base_url=server.url, **more.pop("settings", {}))
    return await provider.send(case.outbound(**{"text": "", "attachments": (file(keeper),), **more}))


class TestWhatsApp:
    taken = answer(200, WhatsAppCase.accepted_body)

    async def test_a_file_is_uploaded_once_for_two_messages(self, server: Server, http: HttpClient) -> None:
        server.script = in_turn(yes(id="4490709327384033"), self.taken, self.taken)
        keeper = Remembering()
        for _ in range(2):
            accepted = await send(WhatsAppCase, server, http, keeper, text="Here it is.")
            assert accepted.provider_message_id == WhatsAppCase.provider_message_id
        (path, form), *messages = asked(server)
        assert path == "/106540352242922/media"
        assert form["messaging_product"].get_content() == "whatsapp"
        assert form["file"].get_content_type() == "application/pdf"
        assert form["file"].get_filename() == "guía.pdf"
        assert form["file"].get_payload(decode=True) == CONTENT
        document = {"id": "4490709327384033", "caption": "Here it is.", "filename": "guía.pdf"}
        assert [(path, body["document"]) for path, body in messages] == [("/106540352242922/messages", document)] * 2
        assert keeper.media is not None
        assert timedelta(days=20) < keeper.media.lasts < timedelta(days=30)

    @pytest.mark.parametrize(
        ("code", "words"), [(100, MEDIA_PARAMETER), (131009, MEDIA_PARAMETER), (131052, "x"), (131053, "x")]
    )
    async def test_an_id_that_meta_does_not_know_is_replaced_within_the_attempt(
        self, code: int, words: str, server: Server, http: HttpClient
    ) -> None:
        server.script = in_turn(no(code, words), yes(id="new"), self.taken)
        await send(WhatsAppCase, server, http, Remembering(MediaId("old", timedelta(1))))
        assert [body["document"]["id"] for path, body in asked(server) if path.endswith("messages")] == ["old", "new"]

    async def test_a_file_that_meta_cannot_take_is_refused(self, server: Server, http: HttpClient) -> None:
        server.script = in_turn(no(131053, "x"))
        with pytest.raises(ContentRefused, match="131053"):
            await send(WhatsAppCase, server, http, Remembering(MediaId("new", timedelta(1)), fresh=True))
        assert len(server.requests) == 1

    async def test_another_refusal_does_not_cost_an_upload(self, server: Server, http: HttpClient) -> None:
        server.script = in_turn(no(100, "(#100) Param to must be a phone number"))
        keeper = Remembering(MediaId("known", timedelta(1)))
        with pytest.raises(ContentRefused, match="100"):
            await send(WhatsAppCase, server, http, keeper)
        assert keeper.media is not None

    @pytest.mark.parametrize("said", [b"<h1>fine</h1>", b'{"id": 7}', b'{"id": ""}', b'{"id": "a b"}'])
    async def test_an_upload_without_an_id_keeps_nothing(self, said: bytes, server: Server, http: HttpClient) -> None:
        server.script = in_turn(answer(200, said))
        keeper = Remembering()
        with pytest.raises(InDoubt):
            await send(WhatsAppCase, server, http, keeper)
        assert (keeper.media, len(server.requests)) == (None, 1)

    async def test_an_account_may_have_links_instead(self, server: Server, http: HttpClient) -> None:
        server.script = in_turn(self.taken)
        await send(WhatsAppCase, server, http, Remembering(), settings={"media": "link"})
        [(_, body)] = asked(server)
        assert set(body["document"]) == {"link", "filename"}

    def test_there_are_two_ways_only(self) -> None:
        with pytest.raises(InvalidOption, match="media"):
            WhatsAppCloud.check({**WhatsAppCase.settings, "media": "carrier pigeon"})


class TestMessenger:
    taken = answer(200, MessengerCase.accepted_body)

    async def test_a_file_is_uploaded_once_for_two_messages(self, server: Server, http: HttpClient) -> None:
        server.script = in_turn(yes(attachment_id="1857777774821032"), self.taken, self.taken)
        keeper = Remembering()
        for _ in range(2):
            await send(MessengerCase, server, http, keeper)
        (path, form), *messages = asked(server)
        assert path == "/104501234567890/message_attachments"
        described = {"attachment": {"type": "file", "payload": {"is_reusable": True}}}
        assert json.loads(form["message"].get_content()) == described
        assert form["filedata"].get_payload(decode=True) == CONTENT
        sent = {"attachment": {"type": "file", "payload": {"attachment_id": "1857777774821032"}}}
        assert [body["message"] for _, body in messages] == [sent] * 2

    async def test_an_id_that_meta_does_not_know_is_replaced_within_the_attempt(
        self, server: Server, http: HttpClient
    ) -> None:
        server.script = in_turn(no(100, "(#100) Invalid attachment_id"), yes(attachment_id="new"), self.taken)
        await send(MessengerCase, server, http, Remembering(MediaId("old", timedelta(1))))
        assert asked(server)[-1][1]["message"]["attachment"]["payload"] == {"attachment_id": "new"}


class TestTelegram:
    @staticmethod
    def taken(**media: Any) -> bytes:
        return yes(ok=True, result={"message_id": 42, "chat": {"id": 1}, **media})

    async def test_the_first_message_has_the_url_and_the_next_ones_what_its_answer_told(
        self, server: Server, http: HttpClient
    ) -> None:
        told = {"document": {"file_id": "BQAC-1", "file_name": "guía.pdf"}}
        server.script = in_turn(self.taken(**told), self.taken(**told))
        keeper = Remembering()
        for _ in range(2):
            await send(TelegramCase, server, http, keeper)
        assert [body["document"] for _, body in asked(server)] == [file(keeper).url, "BQAC-1"]

    async def test_of_a_photo_the_largest_is_the_photo(self, server: Server, http: HttpClient) -> None:
        server.script = in_turn(self.taken(photo=[{"file_id": "small"}, {"file_id": "large"}]))
        keeper = Remembering()
        await send(TelegramCase, server, http, keeper, attachments=(file(keeper, "image/png"),))
        assert keeper.media is not None
        assert keeper.media.id == "large"

    @pytest.mark.parametrize(
        "media", [{}, {"animation": {"file_id": "x"}}, {"document": {"file_id": 7}}, {"document": []}]
    )
    async def test_a_message_whose_file_has_no_id_is_accepted_all_the_same(
        self, media: dict[str, Any], server: Server, http: HttpClient
    ) -> None:
        server.script = in_turn(self.taken(**media))
        keeper = Remembering()
        assert (await send(TelegramCase, server, http, keeper)).provider_message_id == "1:42"
        assert keeper.media is None

    @pytest.mark.parametrize(
        "words",
        ["Bad Request: wrong file identifier/HTTP URL specified", "Bad Request: wrong remote file id specified"],
    )
    async def test_a_file_id_that_telegram_does_not_know_is_replaced_within_the_attempt(
        self, words: str, server: Server, http: HttpClient
    ) -> None:
        refused = answer(400, json.dumps({"ok": False, "error_code": 400, "description": words}).encode())
        server.script = in_turn(refused, self.taken(document={"file_id": "new"}))
        keeper = Remembering(MediaId("old", timedelta(1)))
        await send(TelegramCase, server, http, keeper)
        assert [body["document"] for _, body in asked(server)] == ["old", file(keeper).url]
        assert keeper.media is not None
        assert keeper.media.id == "new"

    async def test_a_url_that_telegram_cannot_fetch_is_asked_for_once(self, server: Server, http: HttpClient) -> None:
        words = "Bad Request: wrong file identifier/HTTP URL specified"
        server.script = in_turn(answer(400, json.dumps({"error_code": 400, "description": words}).encode()))
        with pytest.raises(ContentRefused):
            await send(TelegramCase, server, http, Remembering())
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("case", "other"),
    [
        (WhatsAppCase, {"phone_number_id": "2"}),
        (MessengerCase, {"page_id": "2"}),
        (TelegramCase, {"token": "2:AAHsecret-of-the_bot"}),
        (WhatsAppCase, {"base_url": "https://elsewhere.example"}),
    ],
)
def test_an_id_is_the_senders_own(case: type[ProviderContract], other: dict[str, str]) -> None:
    given = file(Remembering())
    assert case.made().media_place(given) == case.made().media_place(given)
    assert case.made().media_place(given) != case.made(**other).media_place(given)


def test_an_id_outlives_another_token_of_the_same_bot_and_holds_no_secret() -> None:
    given = file(Remembering())
    place = TelegramCase.made().media_place(given)
    assert TelegramCase.made(token="1000000:AAHanother-one").media_place(given) == place
    assert "secret" not in place


@pytest.mark.parametrize("case", [WhatsAppCase, MessengerCase, TelegramCase])
def test_one_file_as_two_kinds_has_two_ids(case: type[ProviderContract]) -> None:
    picture, document = (file(Remembering(), kind) for kind in ("image/png", "application/pdf"))
    assert case.made().media_place(picture) != case.made().media_place(document)


def test_names_that_the_vendor_is_told_with_each_message_share_one_id() -> None:
    ana, ben = (file(Remembering(), name=name) for name in ("Ana.pdf", "Ben.pdf"))
    assert WhatsAppCase.made().media_place(ana) == WhatsAppCase.made().media_place(ben)
    assert TelegramCase.made().media_place(ana) != TelegramCase.made().media_place(ben)
