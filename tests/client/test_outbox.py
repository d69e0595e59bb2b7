"""The fixture `chaski_outbox`, as the tests of another service use it."""

from __future__ import annotations

import pathlib
import re
import threading
from datetime import datetime, timezone

import pytest

import chaski
from chaski.acceptance import CHANNELS

pytest_plugins = ("chaski.testing",)
EARLIER = chaski.Client("http://127.0.0.1:9", "ck_test_earlier")


def test_messages_of_functions_and_clients_are_kept_in_order(chaski_outbox):
    chaski.send("sms", "+56912345678", text="uno", key="k:1", tags=["a"])
    EARLIER.send("email", "ana@example.com", subject="dos", html="<p>dos")
    chaski.Client().send("telegram", "@ana", template="tres", context={"n": 3})
    assert [message.channel for message in chaski_outbox] == ["sms", "email", "telegram"]
    assert (chaski_outbox[0].to, chaski_outbox[0].text, chaski_outbox[0].key) == (
        "+56912345678",
        "uno",
        "k:1",
    )
    assert (chaski_outbox[1].subject, chaski_outbox[2].context) == ("dos", {"n": 3})
    assert chaski_outbox[0].status is chaski.Status.QUEUED


def test_each_test_begins_with_an_empty_outbox(chaski_outbox):
    assert chaski_outbox == []


def test_the_same_key_gives_one_message_and_another_content_is_a_conflict(chaski_outbox):
    first = chaski.send("sms", "+56912345678", text="uno", key="k")
    assert chaski.send("sms", "+56912345678", text="uno", key="k").id == first.id
    with pytest.raises(chaski.IdempotencyConflict):
        chaski.send("sms", "+56912345678", text="dos", key="k")
    assert len(chaski_outbox) == 1
    chaski_outbox.clear()
    assert chaski.send("sms", "+56912345678", text="dos", key="k").text == "dos"


@pytest.mark.parametrize(
    ("channel", "to", "fields", "wrong"),
    [
        ("smss", "+56912345678", {"text": "a"}, "channel"),
        ("sms", "912345678", {"text": "a"}, "to"),
        ("email", "ana", {"text": "a"}, "to"),
        ("telegram", " ", {"text": "a"}, "to"),
        ("sms", "+56912345678", {}, "text"),
        ("sms", "+56912345678", {"text": "a", "priority": "asap"}, "priority"),
        ("sms", "+56912345678", {"text": "a", "send_at": "tomorrow"}, "send_at"),
    ],
)
def test_what_the_service_would_refuse_is_refused(chaski_outbox, channel, to, fields, wrong):
    with pytest.raises(chaski.InvalidMessage) as caught:
        chaski.send(channel, to, **fields)
    assert list(caught.value.errors) == [wrong]
    assert chaski_outbox == []


def test_a_batch_is_kept_with_its_errors_per_row(chaski_outbox):
    good = {"channel": "sms", "to": "+56912345678", "text": "a", "key": "k"}
    result = chaski.send_many([good, {**good, "to": "12", "key": "x"}, good, {"chanel": "sms"}], chunk=2)
    assert (result.accepted, result.duplicates, [each.index for each in result.rejected]) == (1, 1, [1, 3])
    assert chaski_outbox[0].batch_id == result.id
    assert "chanel" in result.rejected[1].errors
    assert [message.id for message in chaski.list(batch=result.id)] == [chaski_outbox[0].id]


def test_waiting_sees_the_message_delivered_or_whatever_the_test_says(chaski_outbox):
    sent = chaski.send("sms", "+56912345678", text="a")
    assert chaski.wait(sent.id).status == "delivered"
    chaski_outbox.ends_as = None
    sent = chaski.send("sms", "+56912345678", text="b")
    assert chaski.get(sent.id).status == "queued"
    chaski_outbox.settle(sent.id, "failed")
    assert chaski.wait(sent.id).status == "failed"
    assert chaski.redeliver(sent.id).status == "queued"


def test_canceling_works_once_and_only_on_what_waits(chaski_outbox):
    later = chaski.send("sms", "+56912345678", text="a", send_at=datetime(2999, 1, 1, tzinfo=timezone.utc))
    assert chaski.get(later.id).status == "queued"
    assert chaski.cancel(later.id).status == "canceled"
    assert chaski_outbox[0].final
    with pytest.raises(chaski.Conflict):
        chaski.cancel(later.id)
    with pytest.raises(chaski.NotFound):
        chaski.get("nothing")


def test_listing_is_newest_first_and_filtered(chaski_outbox):
    for text, tag in (("a", "x"), ("b", "y"), ("c", "x")):
        chaski.send("sms", "+56912345678", text=text, tags=[tag])
    assert [message.text for message in chaski.list(tag="x", channel="sms")] == ["c", "a"]


def test_a_test_can_let_the_service_fail(chaski_outbox):
    chaski_outbox.fail_with(chaski.Unavailable("down"), times=2)
    for _ in range(2):
        with pytest.raises(chaski.Unavailable, match="down"):
            chaski.send("sms", "+56912345678", text="a")
    assert chaski.send("sms", "+56912345678", text="a").to == "+56912345678"


def test_many_threads_lose_no_message(chaski_outbox):
    def send_some():
        for _ in range(50):
            chaski.send("sms", "+56912345678", text="a")

    threads = [threading.Thread(target=send_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(chaski_outbox) == 200


def test_the_outbox_knows_the_channels_that_the_service_knows():
    media = pathlib.Path(chaski.__file__).parent.parent / "channels" / "media.py"
    assert set(re.findall(r'Medium\("(\w+)"', media.read_text())) == CHANNELS
