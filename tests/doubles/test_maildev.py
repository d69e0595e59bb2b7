"""E-mail as maildev receives and parses it: another SMTP server and another parser than the standard library's."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.request import urlopen

import pytest

from channels.base import Outbound
from channels.email_smtp import Smtp
from channels.http import HttpClient

pytestmark = pytest.mark.doubles

TEXT = "¡Hola, señora Ñuñez!\n\n.\n..two dots\n" + "a very long line " * 120 + "\nFin 📦"
HTML = "<p>¡Hola, <b>señora Ñuñez</b>!</p>\n<p>" + "long " * 400 + "</p>"


async def sent(port: int, outbound: Outbound) -> str:
    """Send one mail; its Message-ID."""
    settings = {"host": "localhost", "port": str(port), "security": "none", "from": "La tienda ñ <hola@shop.example>"}
    account = Smtp(Smtp.check(settings), HttpClient())
    accepted = await account.send(outbound)
    await account.close()
    return accepted.provider_message_id


def received(url: str, message_id: str) -> dict[str, Any]:
    """The mail as maildev shows it."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with urlopen(f"{url}/email") as answer:
            for mail in json.load(answer):
                if f"<{mail['messageId']}>" == message_id or mail["messageId"] == message_id:
                    found: dict[str, Any] = mail
                    return found
        time.sleep(0.1)
    raise AssertionError(f"{message_id} did not arrive")


def mail(number: int, **changes: Any) -> Outbound:
    """An ordinary mail with an id of its own."""
    message_id = f"0190a5b4-7c00-7000-8000-{number:012}"
    fields = {"message_id": message_id, "channel": "email", "to": "ana@example.com", "text": TEXT}
    return Outbound(**{**fields, **changes})


def test_text_html_and_headers_arrive_as_they_were_meant(maildev: tuple[int, str]) -> None:
    port, url = maildev
    subject = "Tu pedido nº 7 — 📦 " + "va en camino " * 10
    options = {"headers": {"X-Campaign": "otoño", "List-Unsubscribe": f"<https://shop.example/{'u' * 200}>"}}
    found = received(url, asyncio.run(sent(port, mail(1, html=HTML, subject=subject, options=options))))
    assert found["subject"].split() == subject.split()
    assert found["text"].splitlines() == TEXT.splitlines()
    assert found["html"].strip() == HTML
    assert found["from"] == [{"address": "hola@shop.example", "name": "La tienda ñ"}]
    assert [to["address"] for to in found["to"]] == ["ana@example.com"]
    assert found["headers"]["list-unsubscribe"] == f"<https://shop.example/{'u' * 200}>"
    assert found["headers"]["x-campaign"] == "otoño"
    assert found["headers"]["message-id"] == "<0190a5b4-7c00-7000-8000-000000000001@shop.example>"


@pytest.mark.parametrize(
    ("number", "text"),
    [(2, "plain ascii\n.\nend"), (3, "ваш заказ в пути\n" * 50), (4, "x" * 5_000), (5, "tab\tand = sign =3D\n")],
)
def test_every_encoding_of_a_body_is_read_back(number: int, text: str, maildev: tuple[int, str]) -> None:
    port, url = maildev
    found = received(url, asyncio.run(sent(port, mail(number, text=text))))
    assert found["text"].split() == text.split()


def test_a_repeat_carries_the_same_message_id(maildev: tuple[int, str]) -> None:
    port, _ = maildev
    first = asyncio.run(sent(port, mail(6, attempt=1)))
    assert asyncio.run(sent(port, mail(6, attempt=2))) == first
