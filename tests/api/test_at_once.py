"""What only a real server and real threads can show: equal requests at once, a database that goes away, bodies in chunks."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import Barrier, Semaphore
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from django.db import connection

from config.ports import any_free
from deliveries.models import Acceptance, Batch, Idempotency, Message, Pending
from deliveries.secrets import mint_key
from tests.api.calls import SMS
from tests.api.server import Server
from tests.factories import Caller, make_account, make_caller

pytestmark = pytest.mark.django_db(transaction=True)


def poster(server: Server, caller: Caller) -> Callable[..., urllib3.BaseHTTPResponse]:
    def post(body: Any, key: str = "") -> urllib3.BaseHTTPResponse:
        headers = {**caller.headers, **({"Idempotency-Key": key} if key else {})}
        return server.request("POST", "/api/v1/messages", json=body, headers=headers)

    return post


@pytest.mark.parametrize("count", [20, 50])
def test_equal_posts_at_once_make_one_message_and_all_are_told_it(server: Server, sender: Caller, count: int) -> None:
    post, start = poster(server, sender), Barrier(count)

    def call(_: int) -> tuple[int, str]:
        start.wait()
        answer = post(SMS, key="the same")
        return answer.status, answer.json()["id"]

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(call, range(count)))
    assert Counter(status for status, _ in answers) == {202: 1, 200: count - 1}
    assert len({message_id for _, message_id in answers}) == 1
    for model in (Message, Pending, Acceptance, Idempotency):
        assert model.objects.count() == 1


def test_other_bodies_under_one_key_at_once_make_one_message_and_conflicts(server: Server, sender: Caller) -> None:
    post, start = poster(server, sender), Barrier(20)

    def call(number: int) -> tuple[int, str]:
        start.wait()
        answer = post({**SMS, "text": f"number {number}"}, key="the same")
        return answer.status, answer.json().get("code", "")

    with ThreadPoolExecutor(20) as threads:
        answers = Counter(threads.map(call, range(20)))
    assert answers == {(202, ""): 1, (422, "idempotency_conflict"): 19}
    assert Message.objects.count() == 1


def test_posts_of_two_services_at_once_are_committed_together_and_told_apart(server: Server, sender: Caller) -> None:
    """Same keys, another ordering key for each pair: of each service each key makes one message, of the right order."""
    other = make_caller("warehouse")
    make_account("sms", service=other.service)
    start = Barrier(16)

    def call(number: int) -> tuple[str, int, str]:
        caller = (sender, other)[number % 2]
        start.wait()
        body = {**SMS, "text": caller.service.name, "ordering_key": f"ana {number % 4}"}
        answer = poster(server, caller)(body, key=f"key {number % 8}")
        return caller.service.name, answer.status, answer.json()["id"]

    with ThreadPoolExecutor(16) as threads:
        told = list(threads.map(call, range(16)))
    assert Counter((name, status) for name, status, _ in told) == {
        (name, status): 4 for name in (sender.service.name, "warehouse") for status in (200, 202)
    }
    kept = Message.objects.values_list("service__name", "content__text", "pk")
    assert {(name, text) for name, text, _ in kept} == {(sender.service.name,) * 2, ("warehouse",) * 2}
    assert {(name, str(pk)) for name, _, pk in kept} == {(name, message_id) for name, _, message_id in told}
    for service in (sender.service, other.service):
        first = Pending.objects.filter(service_id=service.pk, blocked=False).values_list("ordering_key", flat=True)
        assert len(first) == len(set(first)) == 2


def test_equal_batches_at_once_double_nothing(server: Server, sender: Caller) -> None:
    rows = [{**SMS, "key": f"k{number}", "ordering_key": f"o{number % 3}"} for number in range(200)]
    start = Barrier(6)

    def call(number: int) -> dict[str, Any]:
        start.wait()
        turned = rows if number % 2 else rows[::-1]  # keys taken in opposite orders must not block each other
        answer = server.request("POST", "/api/v1/batches", json={"messages": turned}, headers=sender.headers)
        assert answer.status == 202, answer.data
        told: dict[str, Any] = answer.json()
        return told

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(call, range(6)))
    assert sum(answer["accepted"] for answer in answers) == 200
    assert sum(answer["duplicates"] for answer in answers) == 1000
    assert Message.objects.count() == Pending.objects.count() == 200


def test_connections_that_break_never_give_a_202_without_a_row(server: Server, sender: Caller) -> None:
    post, told, odd, accepted = poster(server, sender), [], [], Semaphore(0)

    def call(number: int) -> None:
        answer = post({**SMS, "text": str(number)}, key=f"k{number}")
        if answer.status in (200, 202):
            told.append(answer.json()["id"])
            accepted.release()
        elif answer.status != 503 or answer.json()["code"] != "unavailable" or not answer.headers["Retry-After"]:
            odd.append(answer.data)

    with ThreadPoolExecutor(10) as threads:
        calls = [threads.submit(call, number) for number in range(300)]
        while not all(done.done() for done in calls):
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'chaski' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 3"
                )
            accepted.acquire(timeout=1.0)  # broken without a pause, no call at all could come through
        for done in calls:
            done.result()
    assert odd == []
    assert told
    assert set(told) <= {str(pk) for pk in Message.objects.values_list("pk", flat=True)}
    assert Message.objects.count() == Pending.objects.count() == Acceptance.objects.count()


def test_while_the_database_is_away_every_call_says_so(tmp_path: Path) -> None:
    nowhere = f"postgres://nobody@127.0.0.1:{any_free()}/nothing"
    key = {"Authorization": f"Bearer {made_up_key()}"}
    with Server(nowhere, tmp_path / "log", workers=1) as server:
        for method, path in [("POST", "messages"), ("GET", "messages"), ("POST", "batches"), ("GET", "me")]:
            answer = server.request(
                method, f"/api/v1/{path}", headers=key, **({"json": SMS} if method == "POST" else {})
            )
            assert (answer.status, answer.json()["code"]) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["Content-Type"].startswith("application/problem+json")
        ready = server.request("GET", "/health/ready")
        assert (ready.status, ready.json()["status"]) == (503, "unready")
        assert "database does not answer" in ready.json()["reason"]
        assert server.request("GET", "/health/live").status == 200
        for path in ("/metrics", "/receipts/00000000-0000-4000-8000-000000000000"):
            answer = server.request("GET", path)
            assert (answer.status, answer.json()["code"]) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0


def made_up_key() -> str:
    return mint_key(kind="live").text


def test_a_body_in_chunks_is_a_body(server: Server, sender: Caller) -> None:
    headers = {**sender.headers, "Content-Type": "application/json"}
    pieces = [json.dumps(SMS).encode()[at : at + 7] for at in range(0, 100, 7)]
    answer = server.request("POST", "/api/v1/messages", body=iter(pieces), headers=headers, chunked=True)
    assert answer.status == 202, answer.data
    endless = (b" " * 100_000 for _ in range(11))
    answer = server.request("POST", "/api/v1/messages", body=endless, headers=headers, chunked=True)
    assert (answer.status, answer.json()["code"]) == (413, "too_large")
    assert Message.objects.count() == 1


def raw(server: Server, request: bytes) -> bytes:
    """What the server says to these very bytes, with nothing more coming."""
    where = urlsplit(server.url)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=10) as wire:
        wire.sendall(request)
        wire.shutdown(socket.SHUT_WR)
        said = b""
        while piece := wire.recv(65_536):
            said += piece
    return said


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("5", b" 400 "),
        ("5000", b" 400 "),
        ("2000000", b" 413 "),
        ("-1", b" 400 "),
        ("1e3", b" 400 "),
        ("5, 5", b" 400 "),
    ],
)
def test_a_lying_content_length_stores_nothing(server: Server, sender: Caller, declared: str, expected: bytes) -> None:
    body = json.dumps(SMS).encode()
    head = (
        f"POST /api/v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {sender.key}\r\n"
        f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {declared}\r\n\r\n"
    )
    assert expected in raw(server, head.encode() + body).splitlines()[0]
    assert Message.objects.count() == 0


def test_a_client_that_sends_too_much_hears_so_and_keeps_its_connection(server: Server, sender: Caller) -> None:
    """Answered before the body was read, it would meet a reset instead of the problem."""
    where = urlsplit(server.url)
    connection = HTTPConnection(str(where.hostname), int(where.port or 0), timeout=10)
    for _ in range(3):
        headers = {**sender.headers, "Content-Type": "application/json"}
        connection.request("POST", "/api/v1/messages", body=b" " * 7_000_000, headers=headers)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (413, "too_large")
        kept = connection.sock
        connection.request("GET", "/health/live")
        assert connection.getresponse().read()
        assert connection.sock is kept is not None
    connection.close()


def test_lines_that_break_off_keep_what_came_before(server: Server, sender: Caller) -> None:
    line = json.dumps(SMS).encode() + b"\n"
    chunk = f"{len(line):x}\r\n".encode() + line + b"\r\n"
    head = (
        f"POST /api/v1/batches HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {sender.key}\r\n"
        "Content-Type: application/x-ndjson\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    said = raw(server, head.encode() + chunk * 700 + b"zz no chunk")
    assert b" 400 " in said.splitlines()[0]
    assert b"send all again with the same keys" in said
    assert 600 < Message.objects.count() == Pending.objects.count() == Batch.objects.get().accepted


@pytest.mark.slow
def test_fifty_thousand_lines_stream_in_at_constant_memory(server: Server, sender: Caller) -> None:
    headers = {**sender.headers, "Content-Type": "application/x-ndjson"}

    blanks = b" " * 1000  # fifty megabytes in all, which nobody may hold at once

    def stream(count: int) -> Any:
        for start in range(0, count, 100):
            yield b"".join(
                b'{"channel":"sms","to":"+56912345678","text":"%d","key":"s%d-%d"%s}\n'
                % (number, count, number, blanks)
                for number in range(start, start + 100)
            )

    server.request("POST", "/api/v1/batches", body=stream(2_000), headers=headers, chunked=True)
    before = server.memory()
    answer = server.request("POST", "/api/v1/batches", body=stream(50_000), headers=headers, chunked=True)
    told = answer.json()
    assert (answer.status, told["accepted"], told["duplicates"], told["rejected"]) == (202, 50_000, 0, [])
    assert server.memory() - before < 30_000_000
    seen = server.request("GET", f"/api/v1/batches/{told['id']}", headers=sender.headers).json()
    assert (seen["accepted"], seen["counts"]) == (50_000, {"queued": 50_000})
