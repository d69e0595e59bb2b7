"""Files: kept once, named by messages, shown to vendors by a signed URL and to nobody else."""

from __future__ import annotations

import threading
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.core import signing
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from chaski.vocabulary import Status
from deliveries import files, maintenance
from deliveries.api import files as views
from deliveries.conf import limits
from deliveries.models import File, Message
from tests.api.calls import SMS, Api, move, nothing_stored, problem

PDF = b"%PDF-1.7 not really"


def upload(api: Api, content: bytes = PDF, name: str = "guía.pdf", content_type: str = "application/pdf") -> Any:
    return api.client.post(
        "/api/v1/files",
        content,
        content_type=content_type,
        headers=api.caller.headers,
        query_params={"name": name},
    )


def kept(api: Api, **given: Any) -> dict[str, Any]:
    answer = upload(api, **given)
    assert answer.status_code == 201, answer.content
    body: dict[str, Any] = answer.json()
    return body


def form(api: Api, fields: dict[str, Any]) -> Any:
    return raw_form(api, encode_multipart(BOUNDARY, fields), MULTIPART_CONTENT)


def raw_form(api: Api, raw: bytes, content_type: str) -> Any:
    return api.client.generic("POST", "/api/v1/files", raw, content_type, headers=api.caller.headers)


def test_a_file_is_kept_with_its_digest(api: Api) -> None:
    answer = kept(api)
    assert answer == {
        "id": answer["id"],
        "sha256": sha256(PDF).hexdigest(),
        "size": len(PDF),
        "name": "guía.pdf",
        "content_type": "application/pdf",
    }
    row = File.objects.get(pk=answer["id"])
    assert (bytes(row.content), row.service) == (PDF, api.caller.service)


def test_the_same_file_again_is_the_same(api: Api) -> None:
    first = kept(api)
    assert kept(api) == first
    assert kept(api, name="other.pdf")["id"] != first["id"]
    assert kept(api, content=b"other")["id"] != first["id"]
    assert File.objects.count() == 3


def test_a_form_does_as_well(api: Api) -> None:
    part = SimpleUploadedFile("guía.pdf", PDF, content_type="application/pdf; charset=x")
    answer = form(api, {"file": part, "beside": "x"})
    assert answer.status_code == 201, answer.content
    assert answer.json() == kept(api)


def test_the_name_may_stand_in_a_header(api: Api) -> None:
    headers = {"Content-Disposition": "attachment; filename*=UTF-8''gu%C3%ADa.pdf"}
    assert api.post("files", raw=PDF, content_type="application/pdf", headers=headers).json() == kept(api)


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"content": b""}, "file", "is empty"),
        ({"name": "a/b.pdf"}, "name", "slashes"),
        ({"name": "a\r\nb.pdf"}, "name", "line breaks"),
        ({"name": "x" * 256}, "name", "255 bytes"),
        ({"name": "\u202efdp.exe"}, "name", "control characters"),
        ({"content_type": "pdf"}, "content_type", "application/pdf"),
    ],
)
def test_what_is_no_file_is_refused_by_its_field(api: Api, given: dict[str, Any], field: str, words: str) -> None:
    with nothing_stored():
        found = problem(upload(api, **given), 422, "invalid_file")
    assert words in found["errors"][field][0]


def test_a_form_without_a_file_or_with_two_is_refused(api: Api) -> None:
    two = [SimpleUploadedFile("a", b"1"), SimpleUploadedFile("b", b"2")]
    for fields in ({"beside": "x"}, {"file": "text"}, {"file": two}):
        with nothing_stored():
            assert "one part" in problem(form(api, fields), 422, "invalid_file")["errors"]["file"][0]
    with nothing_stored():
        problem(raw_form(api, b"no form", MULTIPART_CONTENT), 422, "invalid_file")
        problem(raw_form(api, b"x", "multipart/form-data"), 400, "malformed")


def test_what_is_too_large_is_refused_before_it_is_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = limits().file_bytes
    assert limit == 25_000_000
    with nothing_stored():
        problem(upload(api, content=bytes(limit + 1)), 413, "too_large")
        problem(form(api, {"file": SimpleUploadedFile("a", bytes(limit + 100_000))}), 413, "too_large")
        problem(form(api, {"file": SimpleUploadedFile("a", bytes(limit + 1))}), 422, "invalid_file")
    assert kept(api, content=bytes(limit))["size"] == limit


def test_more_at_once_than_the_process_has_memory_for_come_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = threading.BoundedSemaphore(1)
    taken.acquire()
    monkeypatch.setattr(views, "_busy", taken)
    with nothing_stored():
        answer = upload(api)
    problem(answer, 429, "busy")
    assert answer["Retry-After"]


# -- messages that carry them


def test_the_answer_is_an_attachment(api: Api) -> None:
    file = kept(api)
    for given in ([file], [file["id"]], [{"id": file["id"]}]):
        assert api.send(attachments=given)["attachments"] == [file]


def test_a_message_may_give_a_file_another_name(api: Api) -> None:
    file = kept(api)
    renamed = {"id": file["id"], "name": "Guía de envío.pdf", "content_type": "application/octet-stream"}
    assert api.send(attachments=[renamed])["attachments"] == [{**file, **renamed}]


def test_a_public_url_is_an_attachment_too(api: Api) -> None:
    given = {"url": "https://shop.example/a%20b.png?x=1", "content_type": "image/png"}
    assert api.send(attachments=[given])["attachments"] == [{"name": "a b.png", **given}]


def test_what_is_said_of_a_file_must_be_so(api: Api) -> None:
    file = kept(api)
    for lie in ({"sha256": "0" * 64}, {"size": 1}):
        found = problem(api.post("messages", {**SMS, "attachments": [{**file, **lie}]}), 422, "invalid_message")
        assert next(iter(lie)) in found["errors"]["attachments"][0]


def test_what_the_provider_cannot_carry_is_refused_at_the_door(api: Api, account: Any) -> None:
    account("line", "line", name="friends", service=api.caller.service, secrets={"token": "x"})
    message = {"channel": "line", "to": "U1", "text": "x", "attachments": [kept(api)]}
    with nothing_stored():
        found = problem(api.post("messages", message), 422, "invalid_message")
    assert "takes no files" in found["errors"]["attachments"][0]


def test_many_messages_share_a_file_that_is_looked_up_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    file = kept(api)
    files.shelf.forget()
    looked, look_up = list[Any](), files.shelf._looked_up
    monkeypatch.setattr(files.shelf, "_looked_up", lambda *given: looked.append(given) or look_up(*given))
    rows = [{**SMS, "key": str(number), "attachments": [file["id"]]} for number in range(50)]
    assert api.post("batches", {"messages": rows}).json()["accepted"] == 50
    for _ in range(3):
        api.send(attachments=[file["id"]])
    assert {str(m.parts["attachments"][0]["id"]) for m in Message.objects.all()} == {file["id"]}
    assert len(looked) == 1


def test_a_redelivered_message_keeps_its_file(api: Api) -> None:
    file = kept(api)
    sent = api.send(attachments=[file["id"]])
    move(sent["id"], Status.FAILED)
    age(file["id"], 25)
    assert api.post(f"messages/{sent['id']}/redeliver").status_code == 200
    assert File.objects.get().kept_until == Message.objects.get().expires_at + timedelta(days=31)


def test_a_repeat_with_other_files_is_a_conflict(api: Api) -> None:
    message = {**SMS, "attachments": [kept(api)["id"]]}
    assert api.post("messages", message, key="k").status_code == 202
    assert api.post("messages", message, key="k").status_code == 200
    other = {**SMS, "attachments": [kept(api, content=b"other")["id"]]}
    problem(api.post("messages", other, key="k"), 422, "idempotency_conflict")


# -- how long they are kept


def age(file_id: str, days: int) -> None:
    """Let the file have come so many days ago."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE file SET kept_until = kept_until - %s WHERE id = %s", [timedelta(days=days), file_id])


def test_an_unused_file_goes_after_a_week(api: Api) -> None:
    file = kept(api)
    age(file["id"], 6)
    forget_old_files()
    assert File.objects.exists()
    age(file["id"], 1)
    forget_old_files()
    assert not File.objects.exists()


def test_a_file_stays_as_long_as_a_message_may_need_it_and_a_month_more(api: Api) -> None:
    file = kept(api)
    message = api.send(attachments=[file["id"]])
    until = File.objects.get().kept_until
    expires_at = Message.objects.get(pk=message["id"]).expires_at
    assert until == expires_at + timedelta(days=31)
    later = api.send(attachments=[file["id"]], expires_at=(expires_at + timedelta(days=90)).isoformat())
    assert File.objects.get().kept_until == Message.objects.get(pk=later["id"]).expires_at + timedelta(days=31)


def test_a_file_that_was_forgotten_is_not_promised_to_a_message(api: Api) -> None:
    file = kept(api)
    api.send(attachments=[file["id"]])
    File.objects.all().delete()
    far = "2027-10-01T00:00:00Z"
    with nothing_stored():
        problem(api.post("messages", {**SMS, "attachments": [file["id"]], "expires_at": far}), 422, "invalid_message")


def forget_old_files() -> None:
    with connection.cursor() as cursor:
        cursor.execute(maintenance.FORGET_FILES)


# -- how vendors see them


def test_a_signed_url_shows_the_file_as_one_to_save(api: Api) -> None:
    file = kept(api, content=b"<script>alert(1)</script>", name='a"b.html', content_type="text/html")
    url = files.url_of(UUID(file["id"]), file["name"])
    answer = api.client.get(url.removeprefix(settings.CHASKI_PUBLIC_URL))
    assert answer.status_code == 200
    assert answer.content == b"<script>alert(1)</script>"
    assert answer["Content-Disposition"] == "attachment; filename*=UTF-8''a%22b.html"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer["Content-Security-Policy"]


def test_a_url_ends_after_some_days(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    token = files.url_of(UUID(kept(api)["id"]), "x").split("/")[-2]
    assert files.read(token) is not None
    monkeypatch.setattr(files, "URL_DAYS", -1)
    assert files.read(token) is None


def test_the_url_stays_the_same_all_day_so_that_vendors_may_keep_what_they_got(api: Api) -> None:
    file_id = UUID(kept(api)["id"])
    assert files.url_of(file_id, "x") == files.url_of(file_id, "x")


@pytest.mark.parametrize("value", [7, None, "x", ["0" * 32], ["0" * 32, "x"], [7, 7]])
def test_what_another_signed_or_nobody_is_nothing(api: Api, value: Any) -> None:
    kept(api)
    ours = signing.Signer(salt="chaski.file").sign_object(value)
    others = signing.Signer(salt="other").sign_object([File.objects.get().pk.hex, 739_000])
    for token in (ours, others, "x"):
        problem(api.client.get(f"/files/{token}/x"), 404, "not_found")
