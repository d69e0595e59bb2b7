"""The sink counts what reaches it: what every "each exactly once" of the benchmarks rests on."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from benchmarks import load, verify
from benchmarks.sink_process import Sink


@pytest.fixture(scope="module")
def running() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def sink(running: Sink) -> Sink:
    running.reset()
    return running


def call(sink: Sink, message: str, delay: str = "d0") -> bytes:
    body = f"To=%2B1&StatusCallback=https%3A%2F%2Fshop.example%2F%3Fmessage%3D{message}".encode()
    return load.request(sink.url(delay) + "/2010-04-01/Accounts/AC/Messages.json", body, {})


def test_every_call_is_counted_by_its_identity(sink: Sink) -> None:
    answers = load.send(sink.url("d0"), [call(sink, str(number)) for number in range(200)], connections=4)
    assert answers.statuses == {201: 200}
    assert sink.ids() == {str(number) for number in range(200)}
    assert verify.sink_saw_each_once(sink, sink.ids()) == []
    assert sum(sink.seen().timeline) == 200


def test_a_doubled_and_a_missing_call_are_told(sink: Sink) -> None:
    load.send(sink.url("d0"), [call(sink, "a"), call(sink, "a"), call(sink, "b")], connections=1)
    wrong = verify.sink_saw_each_once(sink, {"a", "c"})
    assert wrong == ["doubled calls: 1 instead of 0", "never called: 1 instead of 0", "called unasked: 1 instead of 0"]


def test_requests_may_come_in_pieces_and_several_at_once(sink: Sink) -> None:
    both = call(sink, "a") + call(sink, "b")
    with socket.create_connection(("127.0.0.1", sink.port), timeout=5) as wire:
        wire.sendall(both[:30])
        wire.sendall(both[30:])
        data = b""
        while data.count(b'"status":"queued"') < 2:
            data += wire.recv(65536)
    assert sink.ids() == {"a", "b"}


def test_an_answer_comes_after_its_delay_and_a_dead_one_never(sink: Sink) -> None:
    answers = load.send(sink.url("d200"), [call(sink, "a", "d200")], connections=1)
    assert answers.latencies[0] >= 0.2
    with socket.create_connection(("127.0.0.1", sink.port), timeout=0.5) as wire:
        wire.sendall(call(sink, "b", "dead"))
        with pytest.raises(TimeoutError):
            wire.recv(1)
    assert sink.ids() == {"a"}
