"""Whether Twilio has a message whose answer never came: by its list, and never more certain than the list allows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from channels.base import InDoubt, Outbound, SendError
from channels.http import HttpClient
from channels.simulator.faults import FAULTS, PHONE_PREFIX
from channels.simulator.server import Running
from channels.twilio import Twilio
from channels.twilio_list import PAGE_SIZE, PAGES, Listed, judge, read
from tests.channels.contract import MESSAGE_ID

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SINCE = NOW - timedelta(minutes=5)
OURS = Outbound(MESSAGE_ID, "sms", "+56912345678", text="Tu pedido va en camino")
THEIRS = Listed("SM1", OURS.text, "queued", NOW)


def account(simulator: Running, http: HttpClient, **changes: str) -> Twilio:
    """An account at the simulator."""
    given = {"account_sid": "AC" + "0" * 32, "auth_token": "simulated", "from_number": "+15005550006"}
    return Twilio(Twilio.check({**given, "base_url": f"{simulator.url}/twilio", **changes}), http)


async def test_a_message_that_was_taken_without_an_answer_is_found_by_its_text(
    simulator: Running, http: HttpClient
) -> None:
    twilio = account(simulator, http)
    lost = replace(OURS, to=f"{PHONE_PREFIX}{FAULTS['reset_after'].digits}")
    before = datetime.now(UTC)
    await twilio.send(replace(lost, to=OURS.to))
    with pytest.raises(InDoubt):
        await twilio.send(lost)
    found = await twilio.find(lost, before)
    assert found is not None
    assert found.provider_message_id.startswith("SM")
    assert await twilio.find(replace(lost, text="another text"), before) is None


async def test_a_message_that_was_not_taken_is_not_there(simulator: Running, http: HttpClient) -> None:
    twilio = account(simulator, http)
    lost = replace(OURS, to=f"{PHONE_PREFIX}{FAULTS['reset'].digits}")
    with pytest.raises(InDoubt):
        await twilio.send(lost)
    assert await twilio.find(lost, datetime.now(UTC)) is None


async def test_the_whole_list_is_read_and_one_that_does_not_end_tells_nothing(
    simulator: Running, http: HttpClient
) -> None:
    twilio = account(simulator, http)
    before = datetime.now(UTC)
    await twilio.send(OURS)
    for number in range(2 * PAGE_SIZE):
        await twilio.send(replace(OURS, text=f"no. {number}"))
    assert await twilio.find(OURS, before) is not None
    for number in range(PAGES * PAGE_SIZE):
        await twilio.send(replace(OURS, text=f"no. {number}"))
    with pytest.raises(InDoubt, match="list_too_long"):
        await twilio.find(OURS, before)


async def test_a_list_that_is_refused_tells_nothing(simulator: Running, http: HttpClient) -> None:
    twilio = account(simulator, http, base_url=f"{simulator.url}/nothing-here")
    with pytest.raises(SendError):
        await twilio.find(OURS, SINCE)


def judged(*listed: Listed, ours: Outbound = OURS, text_may_differ: bool = False) -> str:
    """The id that was found, or how it was not."""
    try:
        found = judge(listed, ours, SINCE, text_may_differ=text_may_differ)
    except InDoubt as error:
        return error.code
    return found.provider_message_id if found else "nothing"


def test_one_that_fits_is_the_message() -> None:
    assert judged(THEIRS) == "SM1"
    assert judged(THEIRS, replace(THEIRS, sid="SM2", body="another")) == "SM1"


def test_two_that_fit_tell_nothing() -> None:
    assert judged(THEIRS, replace(THEIRS, sid="SM2")) == "several_fit"


def test_what_was_made_before_does_not_count_but_for_the_difference_of_two_clocks() -> None:
    assert judged(replace(THEIRS, made_at=SINCE - timedelta(minutes=3))) == "nothing"
    assert judged(replace(THEIRS, made_at=SINCE - timedelta(minutes=1))) == "SM1"


def test_a_text_that_twilio_may_have_changed_tells_nothing() -> None:
    other = replace(THEIRS, body="Another message")
    assert judged(other) == "nothing"
    assert judged(other, text_may_differ=True) == "text_differs"
    assert judged(replace(THEIRS, body=f"Sent from your Twilio trial account - {OURS.text}")) == "text_differs"
    template = replace(OURS, text="", options={"content_sid": "HX" + "0" * 32})
    assert judged(replace(THEIRS, body=""), ours=template, text_may_differ=True) == "text_differs"


ROW = {
    "sid": "SM1",
    "body": "x",
    "status": "sent",
    "direction": "outbound-api",
    "date_created": "Fri, 24 May 2019 17:44:46 +0000",
}


def test_messages_to_us_are_passed_over() -> None:
    listed, following = read({"messages": [ROW, {**ROW, "direction": "inbound"}], "next_page_uri": None})
    assert [each.sid for each in listed] == ["SM1"]
    assert following == ""


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"messages": None},
        {"messages": [{}]},
        {"messages": ["x"]},
        {"messages": [{**ROW, "date_created": None}]},
        {"messages": [{**ROW, "date_created": "yesterday"}]},
        {"messages": [], "next_page_uri": "https://elsewhere.example/2010-04-01/"},
        {"messages": [], "next_page_uri": 7},
    ],
)
def test_a_list_that_is_not_what_twilio_documents_tells_nothing(page: dict[str, object]) -> None:
    with pytest.raises(InDoubt):
        read(page)
