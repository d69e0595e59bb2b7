"""SNS as moto plays it: it finds the service by what was signed, reads the form, and knows what a phone number is.

Left out: whether the signature is right. moto lets anybody in.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.base import Accepted, ContentRefused, Outbound, RecipientRefused, SendError
from channels.http import HttpClient
from channels.sns import Sns

pytestmark = pytest.mark.doubles

SETTINGS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "secret", "region": "sa-east-1"}


async def sms(url: str, settings: dict[str, str], **changes: Any) -> Accepted:
    """One SMS to ``url``."""
    fields = {
        "message_id": "0190a5b4-7c00-7000-8000-0123456789ab",
        "channel": "sms",
        "to": "+56912345678",
        "text": "¡Hola!",
    }
    async with HttpClient() as http:
        account = Sns(Sns.check({**SETTINGS, **settings, "base_url": url}), http)
        return await account.send(Outbound(**{**fields, **changes}))


@pytest.mark.parametrize("settings", [{}, {"type": "Promotional"}, {"sender_id": "Shop"}])
def test_what_is_sent_is_taken_each_with_an_id_of_its_own(settings: dict[str, str], moto: str) -> None:
    found = {asyncio.run(sms(moto, settings, text=text)).provider_message_id for text in ("¡Hola! 👋", "a+b&c=d")}
    assert len(found) == 2


@pytest.mark.parametrize(
    ("changes", "expected"), [({"to": "somebody"}, RecipientRefused), ({"text": "x" * 1601}, ContentRefused)]
)
def test_a_wrong_number_and_a_wrong_text_are_told_apart(
    changes: dict[str, str], expected: type[SendError], moto: str
) -> None:
    with pytest.raises(SendError) as caught:
        asyncio.run(sms(moto, {}, **changes))
    assert (type(caught.value), caught.value.code) == (expected, "InvalidParameter")
