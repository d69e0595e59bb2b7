"""What a recipient looks like on each channel."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.base import InvalidRecipient
from channels.media import MEDIA

#: 65 and 16 bytes in base64url.
P256DH, AUTH = "BA" + "-" * 42 + "A" * 43, "_" * 21 + "w"
ENDPOINT = "https://fcm.googleapis.com/fcm/send/bk3RN:APA91b_x-y"


def subscription(endpoint: str = ENDPOINT, p256dh: object = P256DH, auth: object = AUTH, **more: object) -> str:
    """As a browser's toJSON() gives it."""
    return json.dumps({"endpoint": endpoint, "keys": {"p256dh": p256dh, "auth": auth}, **more})


NORMAL = f'{{"endpoint":"{ENDPOINT}","keys":{{"auth":"{AUTH}","p256dh":"{P256DH}"}}}}'


@pytest.mark.parametrize(
    ("channel", "to", "becomes"),
    [
        ("sms", "+56912345678", "+56912345678"),
        ("sms", " +56 9 1234 5678 ", "+56912345678"),
        ("whatsapp", "+1 (415) 555-2671", "+14155552671"),
        ("email", "Ana.Ruiz+tag@Shop.EXAMPLE", "Ana.Ruiz+tag@shop.example"),
        ("email", "info@bücher.example", "info@bücher.example"),
        ("telegram", "-1001234567890", "-1001234567890"),
        ("telegram", "@shop_news", "@shop_news"),
        ("slack", " C024BE91L ", "C024BE91L"),
        ("webhook", "https://Shop.example:443/hook", "https://shop.example/hook"),
        ("webpush", subscription(expirationTime=None), NORMAL),
        ("webpush", subscription(ENDPOINT.replace("fcm.google", "FCM.Google")), NORMAL),
        ("webpush", subscription(p256dh=P256DH.replace("-", "+") + "=", auth=AUTH.replace("_", "/") + "=="), NORMAL),
        ("webpush", subscription(auth=AUTH[:-1] + "x"), NORMAL),  # four bits more than the bytes have
    ],
)
def test_a_recipient_is_written_one_way(channel: str, to: str, becomes: str) -> None:
    assert MEDIA[channel].normalise(to) == becomes
    assert MEDIA[channel].normalise(becomes) == becomes


@pytest.mark.parametrize(
    ("channel", "to"),
    [
        ("sms", "912345678"),
        ("sms", "0056912345678"),
        ("sms", "+5691"),
        ("sms", "+999123456789"),
        ("sms", "+56912345678x"),
        ("sms", ""),
        ("email", "ana"),
        ("email", "ana@"),
        ("email", "ana@shop.example, bob@shop.example"),
        ("email", "Ana <ana@shop.example>"),
        ("email", "ana@shop.example\r\nBcc: bob@shop.example"),
        ("email", "ana@[127.0.0.1]"),
        ("telegram", "shop"),
        ("telegram", "@ab"),
        ("telegram", "1.5"),
        ("telegram", "--1"),
        ("telegram", "1\n2"),
        ("push", ""),
        ("push", "x" * 2049),
        ("webhook", "http://shop.example/"),
        ("webpush", ENDPOINT),
        ("webpush", "[]"),
        ("webpush", "[" * 2000),
        ("webpush", json.dumps({"endpoint": ENDPOINT})),
        ("webpush", json.dumps({"endpoint": ENDPOINT, "keys": [P256DH, AUTH]})),
        ("webpush", json.dumps({"endpoint": ENDPOINT, "keys": {"p256dh": P256DH}})),
        ("webpush", subscription(p256dh=P256DH[:-1])),
        ("webpush", subscription(p256dh=P256DH + "A")),
        ("webpush", subscription(p256dh=P256DH[:-1] + "!")),
        ("webpush", subscription(auth=7)),
        ("webpush", subscription(auth="")),
        ("webpush", subscription(f"{ENDPOINT}/{'x' * 2000}")),
        ("webpush", subscription(f"{ENDPOINT}/{'x' * 1850}")),
    ],
)
def test_what_no_vendor_could_reach_is_refused_in_words(channel: str, to: str) -> None:
    with pytest.raises(InvalidRecipient) as caught:
        MEDIA[channel].normalise(to)
    assert str(caught.value).startswith(("is ", "has ", "must "))


@pytest.mark.parametrize(
    ("endpoint", "known"),
    [
        ("https://fcm.googleapis.com/fcm/send/x", True),
        ("https://updates.push.services.mozilla.com/wpush/v2/x", True),
        ("https://web.push.apple.com/x", True),
        ("https://wns2-by3p.notify.windows.com/w/?token=x%3d", True),
        ("https://shop.example/", False),
        ("https://googleapis.com/fcm/send/x", False),
        ("https://www.fcm.googleapis.com/", False),
        ("https://fcm.googleapis.com.shop.example/", False),
        ("https://shop.example/fcm.googleapis.com", False),
        ("https://shop.example#fcm.googleapis.com", False),
        ("https://fcm.googleapis.com@shop.example/", False),
        ("https://shopfcm.googleapis.com/", False),
        ("https://fcmxgoogleapis.com/", False),
        ("https://push.apple.com/", False),
        ("https://shoppush.apple.com/", False),
        ("https://fcm.googleapis.com:8443/", False),
        ("http://fcm.googleapis.com/", False),
        ("https://127.0.0.1/", False),
        ("", False),
    ],
)
def test_only_the_browsers_own_push_services_are_asked(endpoint: str, known: bool) -> None:
    normalise = MEDIA["webpush"].normalise
    if known:
        assert json.loads(normalise(subscription(endpoint)))["endpoint"].casefold() == endpoint
        return
    with pytest.raises(InvalidRecipient, match=r"^has an endpoint"):
        normalise(subscription(endpoint))


@given(channel=st.sampled_from(sorted(MEDIA)), to=st.text(max_size=60))
@settings(max_examples=600, deadline=None)
def test_whatever_is_given_is_refused_or_stays_what_it_has_become(channel: str, to: str) -> None:
    normalise = MEDIA[channel].normalise
    try:
        found = normalise(to)
    except InvalidRecipient:
        return
    assert normalise(found) == found


def test_every_message_has_an_end() -> None:
    assert all(timedelta(minutes=10) <= medium.expires_after <= timedelta(days=4) for medium in MEDIA.values())
