"""Files: how they go up, and how a message names them."""

from __future__ import annotations

import io

import pytest

import chaski

pytest_plugins = ("chaski.testing",)
KEPT = {
    "id": "0190a5b4-7c00-7000-8000-0123456789ab",
    "sha256": "aa",
    "size": 3,
    "name": "guía.pdf",
    "content_type": "application/pdf",
    "new": 1,
}


@pytest.fixture
def keeps(service, says):
    service.replies = [says(201, KEPT)]
    return service


def test_bytes_go_up_as_they_are(keeps, client):
    file = client.upload(b"pdf", "guía.pdf")
    (asked,) = keeps.asked
    assert (asked.method, asked.path, asked.query, asked.body) == (
        "POST",
        "/api/v1/files",
        {"name": ["guía.pdf"]},
        b"pdf",
    )
    assert asked.headers["content-type"] == "application/pdf"
    assert file == chaski.File(KEPT["id"], "aa", 3, "guía.pdf", "application/pdf")


def test_a_path_and_an_open_file_bring_their_names(keeps, client, says, tmp_path):
    path = tmp_path / "a b.png"
    path.write_bytes(b"png")
    keeps.replies += [says(201, KEPT)] * 2
    client.upload(path)
    with path.open("rb") as file:
        client.upload(file)
    client.upload(io.BytesIO(b"png"), content_type="image/x")
    assert [asked.query["name"] for asked in keeps.asked] == [["a b.png"], ["a b.png"], ["file"]]
    assert [asked.headers["content-type"] for asked in keeps.asked] == ["image/png", "image/png", "image/x"]
    assert {asked.body for asked in keeps.asked} == {b"png"}


def test_a_lost_answer_is_asked_for_again(keeps, client, says):
    keeps.replies = [says(503, {}), says(201, KEPT)]
    assert client.upload(b"pdf", "guía.pdf").id == KEPT["id"]
    assert len(keeps.asked) == 2


def test_what_is_refused_says_why(service, client, refuses):
    service.replies = [refuses(422, "invalid_file", errors={"file": ["is empty"]})]
    with pytest.raises(chaski.InvalidMessage, match="is empty"):
        client.upload(b"")


def test_what_is_no_answer_of_ours_is_told_as_such(service, client, says):
    service.replies = [says(200, {"no": "file"})]
    with pytest.raises(chaski.Unavailable, match="no file"):
        client.upload(b"x")


def test_a_file_is_an_attachment_of_one_and_of_many(service, client):
    file = chaski.File("0190")
    client.send(
        "email", "a@b.example", text="x", attachments=[file, {"url": "https://x.y", "content_type": "image/png"}]
    )
    client.send_many([{"channel": "email", "to": "a@b.example", "text": "x", "attachments": [file]}])
    sent, batch = service.asked
    assert sent.json["attachments"] == [{"id": "0190"}, {"url": "https://x.y", "content_type": "image/png"}]
    assert batch.json["messages"][0]["attachments"] == [{"id": "0190"}]


def test_the_outbox_takes_files_too(chaski_outbox):
    file = chaski.upload(b"pdf", "guide.pdf")
    assert file == chaski.upload(b"pdf", "guide.pdf")
    assert (file.size, file.content_type) == (3, "application/pdf")
    chaski.send("email", "a@b.example", attachments=[file])
    assert chaski_outbox[0].attachments == ({"id": file.id},)
