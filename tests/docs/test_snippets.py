"""The code that documents show is valid, and what the README shows works."""

from __future__ import annotations

import ast
import base64
import inspect
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client, RequestFactory
from standardwebhooks import Webhook

import chaski
from channels.webhook import Webhook as Provider
from deliveries import callbacks
from deliveries.models import Account
from tests.docs.texts import Snippet, snippets
from tests.factories import Caller

PYTHON = list(snippets("python"))
JSON = list(snippets("json"))
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()


def one(file: str, containing: str, language: str = "python") -> Snippet:
    """The one block of ``file`` that holds a text."""
    found = [s for s in snippets(language) if s.file == file and containing in s.text]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("snippet", PYTHON, ids=str)
def test_python_compiles(snippet: Snippet) -> None:
    compile(snippet.text, snippet.file, "exec")


@pytest.mark.parametrize("snippet", JSON, ids=str)
def test_json_can_be_read(snippet: Snippet) -> None:
    json.loads(snippet.text)


@pytest.mark.parametrize("snippet", PYTHON, ids=str)
def test_calls_of_the_client_exist_with_their_arguments(snippet: Snippet) -> None:
    for node in ast.walk(ast.parse(snippet.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "chaski":
            assert hasattr(chaski, node.attr), node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("chaski."):
            target = getattr(chaski, ast.unparse(node.func).partition(".")[2])
            arguments = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            inspect.signature(target).bind(*([None] * len(node.args)), **arguments)


@pytest.fixture
def environment(
    transactional_db: None, live_server: Any, shop: Caller, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What the README exports; afterwards the client's connection, and with it the server's to the database, is closed."""
    monkeypatch.setenv("CHASKI_URL", live_server.url)
    monkeypatch.setenv("CHASKI_API_KEY", shop.key)
    before = _other_sessions()
    yield
    chaski._client(live_server.url, shop.key).close()
    deadline = time.monotonic() + 10
    while _other_sessions() > before:
        assert time.monotonic() < deadline, "the server keeps its connection to the database"
        time.sleep(0.02)


def _other_sessions() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        row: Any = cursor.fetchone()
        return int(row[0])


def test_the_readme_sends_one_and_its_curl_finds_it_again(
    client: Client,
    environment: None,
    account: Callable[..., Account],
    capsys: pytest.CaptureFixture[str],
) -> None:
    account("sms")
    text = one("README.md", "chaski.send").text.partition("print(chaski.wait")[0]  # no worker runs here
    exec(compile(text, "README.md", "exec"), {})  # the very text that people copy
    message_id, status = capsys.readouterr().out.split()
    assert status == "queued"

    words = shlex.split(one("README.md", "curl", "shell").text.replace("\\\n", " "))
    headers = dict(words[n + 1].split(": ") for n, word in enumerate(words) if word == "-H")
    headers["Authorization"] = f"Bearer {os.environ['CHASKI_API_KEY']}"
    content_type = headers.pop("Content-Type")
    path = words[1].removeprefix("$CHASKI_URL")
    body = words[words.index("-d") + 1]
    answer = client.post(path, body, content_type=content_type, headers=headers)
    assert (answer.status_code, answer.json().get("id")) == (200, message_id), answer.content


def event(sequence: int) -> dict[str, Any]:
    row = (uuid4(), sequence, "delivered", datetime.now(UTC), "receipt: delivered", "sms", "order-1042", {}, "", "")
    return callbacks._event(row)


def test_the_shown_callback_has_the_members_of_a_real_one() -> None:
    single = json.loads(one("docs/how-to/receive-callbacks.md", '"message.delivered"', "json").text)
    real = callbacks.payload([event(4)])
    assert single.keys() == real.keys()
    assert single["data"].keys() == real["data"].keys()
    several = json.loads(one("docs/how-to/receive-callbacks.md", '"message.events"', "json").text)
    real = callbacks.payload([event(1), event(2)])
    assert (several.keys(), several["type"], several["data"].keys()) == (real.keys(), real["type"], real["data"].keys())


@pytest.fixture
def view(settings: Any) -> SimpleNamespace:
    """The view of the callbacks page, and what it noted."""
    settings.CHASKI_CALLBACK_SECRET = SECRET
    noted: list[tuple[Any, ...]] = []
    namespace: dict[str, Any] = {"note": lambda *given: noted.append(given)}
    exec(compile(one("docs/how-to/receive-callbacks.md", "csrf_exempt").text, "page", "exec"), namespace)
    return SimpleNamespace(call=namespace["chaski_events"], noted=noted)


def post(body: bytes, headers: dict[str, str]) -> Any:
    given = {name: value for name, value in headers.items() if name != "Content-Type"}
    return RequestFactory().post("/chaski/events", body, content_type="application/json", headers=given)


@pytest.mark.parametrize("count", [1, 2])
def test_the_shown_receiver_takes_what_the_webhook_provider_signs(view: SimpleNamespace, count: int) -> None:
    provider = Provider({"secret": SECRET}, None)  # type: ignore[arg-type]
    events = [event(number + 1) for number in range(count)]
    body = json.dumps(callbacks.payload(events), ensure_ascii=False, separators=(",", ":"))
    request = post(body.encode(), provider._headers(str(uuid4()), datetime.now(UTC), body))
    assert view.call(request).status_code == 204
    assert [given[1:] for given in view.noted] == [(e["sequence"], "delivered") for e in events]


def test_the_shown_receiver_refuses_a_forged_one(view: SimpleNamespace) -> None:
    body = json.dumps(callbacks.payload([event(1)]))
    now = datetime.now(UTC)
    other = Webhook("whsec_" + base64.b64encode(b"another secret, as long as that.").decode())
    headers = {
        "webhook-id": "x",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": other.sign("x", now, body),
    }
    assert view.call(post(body.encode(), headers)).status_code == 401
    assert not view.noted


def test_every_block_says_its_language_or_is_a_drawing() -> None:
    known = {"shell", "python", "json", "sql", "mermaid", ""}
    languages = {s.language for s in snippets(*known)}
    assert languages <= known
    assert not [s for s in snippets("") if re.match(r"\s*(\./|import |def |\{)", s.text)]
