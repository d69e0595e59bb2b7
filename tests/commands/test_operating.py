"""pause, resume, resolve, redeliver, trace, settings, send, account test: what operators do and see."""

from __future__ import annotations

from datetime import UTC, datetime
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest
from django.conf import settings
from django.core.management import load_command_class
from django.db import connection
from uuid_utils.compat import uuid7

from chaski.vocabulary import Status
from deliveries.models import Account, Audit, Contact, Message, Pause
from tests.api.calls import SMS, Api, lease, move, nothing_stored
from tests.commands.shell import refused, run, same_shape
from tests.factories import make_account, make_caller

NO_ID = "01980000-0000-7000-8000-000000000000"


def example(name: str, verb: str = "") -> Any:
    return load_command_class("deliveries", name).examples[verb]  # type: ignore[attr-defined]


def test_everything_or_a_part_is_paused_and_goes_on(api: Api) -> None:
    batch = api.post("batches", {"messages": [SMS]}).json()["id"]
    account = str(Account.objects.get(channel="sms").pk)
    for flags, scope, value in [
        ((), "all", ""),
        (("--channel", "sms"), "channel", "sms"),
        (("--account", "main"), "account", account),
        (("--account", "main", "--service", "shop"), "account", account),
        (("--service", "shop"), "service", str(api.caller.service.pk)),
        (("--batch", batch), "batch", batch),
    ]:
        said = run("pause", *flags, "--json", "--reason", "trying")
        assert same_shape(example("pause"), said.json)
        assert said.json == [{"scope": scope, "value": value, "changed": True}]
        assert Pause.objects.values_list("scope", "value").get() == (scope, value)
        assert "was paused already" in run("pause", *flags).err
        assert api.post("messages", SMS).status_code == 202  # acceptance goes on
        assert run("resume", *flags, "--json").json == [{"scope": scope, "value": value, "changed": True}]
        assert not Pause.objects.exists()
        assert "was not paused" in run("resume", *flags).err
    assert Audit.objects.filter(action="pause", reason="trying").count() == 6


def test_several_flags_are_several_pauses_and_what_is_left_is_told(api: Api) -> None:
    assert len(run("pause", "--channel", "sms", "--service", "shop", "--json").json) == 2
    assert "1 other pauses are in force" in run("resume", "--channel", "sms").err
    assert "Everything was not paused." in run("resume").err


def test_names_are_told_as_they_are(api: Api) -> None:
    make_account("sms", name="Main-SMS")
    assert "Account Main-SMS is paused." in run("pause", "--account", "Main-SMS").err


def test_resuming_an_account_ends_its_stop(api: Api) -> None:
    Account.objects.filter(name="main").update(stopped_at="2026-01-01T00:00:00Z", stopped_reason="401")
    run("resume", "--account", "main")
    assert Account.objects.get(name="main").stopped_at is None


@pytest.mark.parametrize("name", ["pause", "resume"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--channel", "pigeon"), ("'pigeon' is not a channel", "sms")),
        (("--account", "none"), ("no account 'none'", "main")),
        (("--account", "twice"), ("several services", "--service")),
        (("--service", "none"), ("no service 'none'", "shop")),
        (("--batch", "7"), ("not a batch id",)),
        (("--batch", NO_ID), ("no batch",)),
        (("--channel", "sms", "--account", "none"), ("no account",)),
        (("everything",), ("unrecognized arguments",)),
    ],
)
def test_what_is_not_there_cannot_be_paused(
    api: Api, name: str, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    make_account("sms", name="twice")
    make_account("sms", name="twice", service=make_caller("other").service)
    with nothing_stored():
        refused(run(name, *flags), *words)


@pytest.mark.parametrize(("verdict", "status"), [("sent", "sent"), ("failed", "failed"), ("retry", "queued")])
def test_a_message_in_doubt_is_decided_with_a_reason(api: Api, verdict: str, status: str) -> None:
    sent = api.send()
    move(sent["id"], Status.SENDING, Status.IN_DOUBT)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pending SET blocked = true, waiting_for = 'operator'")
    assert api.get(f"messages/{sent['id']}").json()["waiting_for"] == "operator"
    said = run("resolve", sent["id"], verdict, "--reason", "asked the provider", "--json")
    assert same_shape(example("resolve"), said.json)
    assert Message.objects.get().status == status
    act = Audit.objects.get(action="resolve")
    assert (act.target, act.reason, act.detail) == (sent["id"], "asked the provider", {"verdict": verdict})
    assert act.actor.startswith("shell:")


def test_what_is_not_in_doubt_cannot_be_decided(api: Api) -> None:
    sent = api.send()
    with nothing_stored():
        refused(run("resolve", sent["id"], "sent", "--reason", "x"), "queued, not in doubt")
        refused(run("resolve", sent["id"], "sent"), "--reason")
        refused(run("resolve", sent["id"], "maybe", "--reason", "x"), "invalid choice")
        refused(run("resolve", NO_ID, "sent", "--reason", "x"), "no message")
        refused(run("resolve", "7", "sent", "--reason", "x"), "not a message id")


@pytest.fixture
def failed(api: Api) -> list[str]:
    made = [api.send()["id"] for _ in range(3)] + [api.send(channel="email", to="a@example.com", subject="x")["id"]]
    for message_id, code in zip(made, ["30003", "30003", "21610", "550"], strict=True):
        move(message_id, Status.FAILED, error_class="transient", error_code=code)
    return made


def test_a_dry_run_tells_how_many_which_codes_and_how_long(api: Api, failed: list[str]) -> None:
    with nothing_stored():
        said = run("redeliver", "--status", "failed", "--since", "1h", "--rate", "2", "--dry-run", "--json")
    assert said.json == {
        "messages": 4,
        "codes": {"30003": 2, "21610": 1, "550": 1},
        "seconds": 2.0,
        "redelivered": 0,
        "dry_run": True,
    }
    assert same_shape(example("redeliver"), said.json)
    assert "4 messages, about 2 s" in said.err
    assert set(Message.objects.values_list("status", flat=True)) == {"failed"}


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ((), 4),
        (("--channel", "sms"), 3),
        (("--code", "30003"), 2),
        (("--channel", "email", "--code", "30003"), 0),
        (("--limit", "1"), 1),
    ],
)
def test_redeliver_queues_what_was_chosen_again(
    api: Api, failed: list[str], flags: tuple[str, ...], count: int
) -> None:
    said = run("redeliver", "--status", "failed", "--since", "1h", "--rate", "1000", *flags, "--json")
    assert (said.json["messages"], said.json["redelivered"]) == (count, count)
    assert Message.objects.filter(status="queued").count() == count
    assert Audit.objects.filter(action="redeliver", reason="bulk redeliver").count() == count


def test_what_failed_long_ago_stays(api: Api, failed: list[str]) -> None:
    Message.objects.update(updated_at="2026-01-01T00:00:00Z")
    assert run("redeliver", "--status", "failed", "--since", "1h", "--json").json["messages"] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--since", "1h"), ("--status",)),
        (("--status", "failed"), ("--since",)),
        (("--status", "sent", "--since", "1h"), ("invalid choice",)),
        (("--status", "failed", "--since", "soon"), ("--since", "90s, 5m, 1h or 7d")),
        (("--status", "failed", "--since", "²h"), ("--since",)),
        (("--status", "failed", "--since", "999999999999d"), ("longer than",)),
        (("--status", "failed", "--since", "1h", "--rate", "0"), ("--rate and --limit",)),
        (("--status", "failed", "--since", "1h", "--limit", "-1"), ("--rate and --limit",)),
        (("--status", "failed", "--since", "1h", "--channel", "pigeon"), ("invalid choice",)),
    ],
)
def test_a_replay_that_is_not_clear_is_refused(
    api: Api, failed: list[str], flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with nothing_stored():
        refused(run("redeliver", *flags), *words)


def test_a_trace_tells_the_whole_life_in_order(api: Api) -> None:
    sent = api.send()
    move(sent["id"], Status.SENDING, Status.FAILED, error_class="transient", error_code="x", reason="spent")
    api.post(f"messages/{sent['id']}/redeliver")
    said = run("trace", sent["id"], "--json")
    assert same_shape(example("trace"), said.json)
    assert (said.json["id"], said.json["status"], said.json["waiting_for"]) == (sent["id"], "queued", None)
    entries = said.json["entries"]
    assert [entry["data"]["status"] for entry in entries if entry["kind"] == "event"] == [
        "queued",
        "sending",
        "failed",
        "queued",
    ]
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)
    assert "T" in entries[0]["at"]
    told = run("trace", sent["id"]).out
    for words in ("accepted and queued", "failed: spent", "service:shop asked for: redeliver"):
        assert words in told


@pytest.mark.parametrize(("error_class", "told"), [("not_allowed_now", True), ("content_refused", False)])
def test_a_trace_of_what_was_not_allowed_says_when_the_recipient_last_wrote(
    api: Api, error_class: str, told: bool
) -> None:
    sent = api.send()
    message = Message.objects.get(pk=sent["id"])
    wrote = datetime(2026, 11, 25, 10, 3, tzinfo=UTC)
    Contact.objects.create(account_id=message.account_id, person=message.recipient, replied_at=wrote)
    move(sent["id"], Status.SENDING, Status.FAILED, error_class=error_class, error_code="131047", reason="no")
    words = "the recipient last wrote to this account at 2026-11-25 10:03:00 UTC"
    assert (words in run("trace", sent["id"]).out) == told
    assert (run("trace", sent["id"], "--json").json["last_reply_at"] is not None) == told


def test_a_trace_of_a_waiting_message_says_for_what_and_until_when(api: Api) -> None:
    sent = api.send(send_at="2027-01-01T00:00:00Z")
    assert "It waits for its time to be sent until 2027-01-01 00:00:00 UTC." in run("trace", sent["id"]).out
    assert run("trace", sent["id"], "--json").json["waiting_until"] == "2027-01-01T00:00:00+00:00"
    leased = api.send()
    lease(leased["id"])
    assert run("trace", leased["id"], "--json").json["status"] == "sending"


@pytest.mark.parametrize(
    ("given", "words"), [("7", "not a message id"), (NO_ID, "no message"), (str(uuid7()), "no message")]
)
def test_what_is_not_there_has_no_trace(db: None, given: str, words: str) -> None:
    refused(run("trace", given), words)


def test_the_settings_are_shown_with_their_source_and_without_secrets() -> None:
    said = run("settings", "--json")
    assert all(set(row) == set(example("settings")[0]) for row in said.json)
    rows = {row["name"]: row for row in said.json}
    assert set(rows) == set(settings.CHASKI_SETTINGS)
    assert (rows["CHASKI_ENV"]["value"], rows["CHASKI_ENV"]["source"]) == ("test", "environment")
    assert rows["DATABASE_URL"]["value"] == "(set)"
    for shown in (said.out, run("settings").out):
        for secret in (settings.SECRET_KEY, *settings.CHASKI_CREDENTIAL_KEYS, settings.CHASKI_BROKER_URL):
            assert secret not in shown


def test_one_is_sent_from_the_shell(api: Api) -> None:
    said = run("send", "sms", "+56 9 1234 5678", "--text", "hola", "--json")
    assert same_shape(example("send"), said.json)
    message = Message.objects.get()
    assert (said.json["id"], said.json["status"], message.origin) == (str(message.pk), "queued", "shell")
    assert (message.content["text"], message.service_id) == ("hola", api.caller.service.pk)


def test_waiting_in_vain_is_told_by_the_exit_code(api: Api) -> None:
    said = run("send", "sms", "+56912345678", "--wait", "0.2", "--json")
    assert (said.code, said.json["status"]) == (1, "queued")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sms", "123"), ("to", "+56912345678")),
        (("pigeon", "123"), ("invalid choice",)),
        (("telegram", "123"), ("account create telegram",)),
        (("sms", "+56912345678", "--service", "none"), ("no service 'none'",)),
        (("sms", "+56912345678", "--wait", "long"), ("invalid float",)),
    ],
)
def test_one_that_cannot_be_sent_is_refused(api: Api, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    with nothing_stored():
        refused(run("send", *arguments), *words)


def test_with_several_services_the_sender_must_be_named(api: Api) -> None:
    make_caller("other")
    refused(run("send", "sms", "+56912345678"), "--service NAME")


def test_an_account_is_tried_and_every_step_shown(transactional_db: None) -> None:
    make_account("sms", service=make_caller("shop").service)
    done = Thread(target=_send_the_first)
    done.start()
    said = run("account", "test", "main", "+56912345678", "--wait", "20", "--json")
    done.join()
    assert same_shape(example("account", "test"), said.json)
    assert (said.code, said.json["status"]) == (0, "sent"), said.err
    for step in ("accepted and queued", "sending", "sent"):
        assert step in said.err
    assert Message.objects.get().origin == "test"


def _send_the_first() -> None:
    """What a worker does, as far as the rows tell."""
    begun = monotonic()
    while not Message.objects.exists() and monotonic() - begun < 10:
        sleep(0.01)
    move(str(Message.objects.get().pk), Status.SENDING, Status.SENT, attempt=1)
    connection.close()


def test_an_account_that_is_tried_in_vain_is_told_so(api: Api) -> None:
    said = run("account", "test", "main", "+56912345678", "--wait", "0.2", "--json")
    assert (said.code, said.json["status"]) == (1, "queued")
    assert "Do the workers run? Try doctor." in said.err


@pytest.mark.parametrize(
    ("arguments", "words"), [(("none", "1"), "no account 'none'"), (("main", "123"), "+56912345678")]
)
def test_an_account_is_not_tried_on_what_it_cannot_reach(api: Api, arguments: tuple[str, ...], words: str) -> None:
    with nothing_stored():
        refused(run("account", "test", *arguments), words)
