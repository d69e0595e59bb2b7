"""Many messages: streamed, in chunks, one batch, and exact errors per row."""

from __future__ import annotations

from datetime import datetime

import pytest

import chaski
from chaski import batches


def rows(count):
    return ({"channel": "sms", "to": f"+5691234{n:04}", "text": "hola", "key": f"k:{n}"} for n in range(count))


def test_rows_are_read_as_they_are_sent_and_belong_to_one_batch(service, client):
    read = []
    heights = []

    def watched():
        for row in rows(25):
            read.append(row)
            heights.append(len(read) - sum(len(asked.json["messages"]) for asked in service.asked))
            yield row

    result = client.send_many(watched(), chunk=10)
    assert [len(asked.json["messages"]) for asked in service.asked] == [10, 10, 5]
    assert max(heights) <= 11
    assert {asked.json["id"] for asked in service.asked} == {result.id}
    assert (result.accepted, result.duplicates, result.rejected) == (25, 0, ())


def test_each_row_gets_the_id_and_key_that_it_lacks_and_keeps_its_own(service, client):
    mine = "0192f0c1-2345-7abc-8def-0123456789ab"
    client.send_many([{"channel": "sms", "to": "+1", "text": "a"}, {"id": mine, "key": "k"}])
    minted, own = service.asked[0].json["messages"]
    assert minted["key"] == minted["id"]
    assert (own["id"], own["key"]) == (mine, "k")


def test_refused_rows_are_counted_from_the_start_of_everything(service, client, says):
    def answer(asked):
        given = asked.json["messages"]
        bad = [{"index": at, "errors": {"to": ["bad"]}} for at, row in enumerate(given) if row["to"] == "bad"]
        counts = {"accepted": len(given) - len(bad), "duplicates": 0}
        return says(202, {"id": asked.json["id"], **counts, "rejected": bad})

    service.otherwise = answer
    given = [{**row, "to": "bad"} if n in (1, 4, 8) else row for n, row in enumerate(rows(10))]
    given[2] = {**given[2], "send_at": datetime(2030, 1, 1)}
    given[5] = "not a row"
    result = client.send_many(given, chunk=3)
    assert [rejected.index for rejected in result.rejected] == [1, 2, 4, 5, 8]
    assert [list(rejected.errors) for rejected in result.rejected] == [
        ["to"],
        ["send_at"],
        ["to"],
        ["row"],
        ["to"],
    ]
    assert all(rejected.row == given[rejected.index] for rejected in result.rejected)
    assert result.accepted == 5


def test_a_repeated_chunk_is_the_same_byte_for_byte(service, client, refuses):
    service.replies = [refuses(503, "away")]
    client.send_many([{"channel": "sms", "to": "+1", "text": "a"}])
    first, second = service.asked
    assert first.body == second.body


def test_an_error_carries_what_was_done_before_it(service, client, says, refuses):
    done = {"id": "b", "accepted": 9, "duplicates": 1, "rejected": []}
    service.replies = [says(202, done), refuses(403, "permission_denied")]
    with pytest.raises(chaski.PermissionDenied) as caught:
        client.send_many(rows(20), chunk=10)
    assert caught.value.partial is not None
    assert (caught.value.partial.accepted, caught.value.partial.duplicates) == (9, 1)
    assert caught.value.partial.id == service.asked[0].json["id"]


def test_a_chunk_stays_below_what_the_service_takes_in_one_call(service, client, monkeypatch):
    monkeypatch.setattr(batches, "MAX_BYTES", 1_000)
    client.send_many({"channel": "sms", "to": "+1", "text": "x" * 300} for _ in range(5))
    assert [len(asked.json["messages"]) for asked in service.asked] == [2, 2, 1]


def test_nothing_to_send_is_no_batch(service, client):
    assert client.send_many([]) == chaski.BatchResult("")
    assert service.asked == []


@pytest.mark.parametrize("chunk", [0, 10_001])
def test_a_chunk_size_that_the_service_does_not_take_is_a_mistake(client, chunk):
    with pytest.raises(ValueError, match="from 1 to 10000"):
        client.send_many([], chunk=chunk)
