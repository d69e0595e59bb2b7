"""The page of one message: the answer to support's question, its fields in plain words, its timeline, and the acts.

Called by the message's admin. Everything that happened comes from ``deliveries.trace``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from django.conf import settings
from django.template.defaultfilters import filesizeformat
from django.urls import reverse

from chaski.vocabulary import ErrorClass, Status
from deliveries.admin import showing
from deliveries.admin.acting import ACTS, Act
from deliveries.admin.callbacks_told import Told
from deliveries.admin.showing import lasting, moment, plain
from deliveries.files import url_of
from deliveries.models import Account, Message, Service
from deliveries.models.messages import LANES, Origin
from deliveries.trace import Entry, Trace


@dataclass(frozen=True, slots=True)
class Fact:
    """One field of the page; ``href`` is where it leads, if it does."""

    label: str
    value: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the timeline as the page shows it. ``day`` is empty where it is the day of the entry before.

    ``detail`` are further facts of an attempt or receipt.
    """

    day: str
    at: str
    kind: str
    words: str
    detail: tuple[Fact, ...]


def facts(message: Message, service: Service | None, account: Account | None) -> Iterator[Fact]:
    """The fields of a message in plain words, those that are empty left out."""
    yield Fact("Id", str(message.pk))
    yield Fact("To", plain(message.to, 300))
    if message.recipient != message.to:
        yield Fact("Written to", plain(message.recipient, 300))
    yield Fact("Channel", message.channel)
    yield _linked("Service", service, service.name if service else str(message.service_id))
    carried = f"{account.name} ({message.provider})" if account else message.provider
    yield _linked("Account", account, carried)
    yield Fact("Asked for by", str(Origin(message.origin).label) if message.origin in Origin.values else message.origin)
    yield Fact("Urgency", str(LANES[message.lane]))
    if message.batch_id:
        yield Fact("Batch", str(message.batch_id), reverse("admin:deliveries_batch_change", args=[message.batch_id]))
    yield from _named(message)
    yield from _times(message)


def _linked(label: str, row: Service | Account | None, words: str) -> Fact:
    page = f"admin:deliveries_{row._meta.model_name}_change" if row else ""
    return Fact(label, words, reverse(page, args=[row.pk]) if row else "")


def _named(message: Message) -> Iterator[Fact]:
    named = {
        "Reference": message.reference,
        "Idempotency key": message.idempotency_key,
        "Ordering key": message.ordering_key,
        "Tags": ", ".join(message.tags),
        "Provider's id": message.provider_message_id,
        "Request": message.request_id,
        "Template": _template(message),
    }
    yield from (Fact(label, plain(value, 300)) for label, value in named.items() if value)


def _template(message: Message) -> str:
    name = message.parts.get("template", "")
    return f"{name} v{message.parts.get('template_version', '')}" if name else ""


def _times(message: Message) -> Iterator[Fact]:
    times = {
        "Accepted": message.created_at,
        "To be sent": message.send_at,
        "Expires": message.expires_at,
        "Handed over": message.sent_at,
        "Delivered": message.delivered_at,
        "Read": message.read_at,
        "Final since": message.finished_at,
    }
    yield from (Fact(label, f"{moment(at)} UTC") for label, at in times.items() if at)
    counts = {
        "Attempts": message.attempt_count,
        "Times in doubt": message.in_doubt_count,
        "Redelivered": message.redelivery_count,
    }
    yield from (Fact(label, str(count)) for label, count in counts.items() if count)


def steps(found: Trace) -> list[Step]:
    """The timeline, oldest first."""
    before = [None, *(entry.at.date() for entry in found.entries)]
    return [
        Step(
            day=f"{entry.at:%Y-%m-%d}" if entry.at.date() != day else "",
            at=f"{entry.at:%H:%M:%S}.{entry.at.microsecond // 1000:03d}",
            kind=entry.kind,
            words=plain(_words(entry), 1000),
            detail=tuple(_more(entry)),
        )
        for day, entry in zip(before, found.entries, strict=False)
    ]


def _words(entry: Entry) -> str:
    """The entry's own words, with our word for an error as a sentence and the provider's in brackets."""
    data = entry.data
    if entry.kind == "attempt":
        word, said = data["outcome"], [data["code"], data["detail"]]
    else:
        word, _, rest = data.get("reason", "").partition(" ")
        said = [rest]
    if entry.kind not in ("attempt", "event") or word not in set(map(str, ErrorClass)):
        return entry.words
    theirs = [part for part in said if part]
    sentence = showing.error(word) + (f" ({': '.join(theirs)})" if theirs else "")
    return entry.words.replace(" ".join([word, *theirs]), sentence, 1)


def _more(entry: Entry) -> Iterator[Fact]:
    data = entry.data
    if entry.kind == "receipt" and data["at"]:
        yield Fact("the provider's own time", f"{moment(data['at'])} UTC")
    if entry.kind != "attempt":
        return
    if data["begun_at"] and data["finished_at"]:
        yield Fact("took", lasting(data["finished_at"] - data["begun_at"]))
    if data["written_at"]:
        yield Fact("the request was written", f"{moment(data['written_at'])} UTC")
    if data["finished_at"] and not data["begun_at"]:
        yield Fact("the call", "was never made")
    if data["provider_message_id"]:
        yield Fact("provider's id", plain(data["provider_message_id"], 200))
    if data["worker"]:
        yield Fact("worker", plain(data["worker"], 200))
    if data["task_id"]:
        yield Fact("task", plain(data["task_id"], 200), flower(data["task_id"]))


def flower(task_id: str) -> str:
    """The page of a task in Flower; empty where CHASKI_FLOWER_URL is not set."""
    return f"{settings.CHASKI_FLOWER_URL}/task/{task_id}" if settings.CHASKI_FLOWER_URL else ""


def possible(status: Status) -> list[Act]:
    """The acts that a message in ``status`` allows. The act itself looks again."""
    verbs = {
        Status.QUEUED: ["cancel"],
        Status.IN_DOUBT: ["resolve_sent", "resolve_failed", "resolve_retry"],
        Status.FAILED: ["redeliver"],
        Status.UNDELIVERED: ["redeliver"],
        Status.EXPIRED: ["redeliver"],
    }
    return [ACTS[verb] for verb in verbs.get(status, [])]


def callbacks(found: Told) -> list[Fact]:
    """Links to the callbacks about a message."""
    page = "admin:deliveries_message_change"
    return [Fact(str(pk), showing.status(status), reverse(page, args=[pk])) for pk, status in found.callbacks]


def neighbours(message: Message) -> list[Fact]:
    """Lists that support looks at next: the same recipient, the same reference."""
    lists = {"Everything to this recipient": message.recipient, "Everything with this reference": message.reference}
    page = reverse("admin:deliveries_message_changelist")
    return [Fact(label, "", f"{page}?{urlencode({'q': text})}") for label, text in lists.items() if text]


def body(message: Message) -> dict[str, Any]:
    """What the message says, part by part; the JSON parts as they are kept."""
    content = message.parts
    return {
        "subject": plain(content.get("subject", "")),
        "text": plain(content.get("text", "")),
        "html": content.get("html", ""),
        "attachments": attached(content.get("attachments", [])),
        "options": message.options,
        "metadata": message.metadata,
    }


def attached(rows: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """The files, each with a link to save it, valid for a few days."""
    return [Fact(plain(row["name"], 300), _about(row), _link_of(row)) for row in rows]


def _about(row: Mapping[str, Any]) -> str:
    size = f", {filesizeformat(row['size'])}" if "size" in row else ""
    return f"{plain(row['content_type'], 100)}{size}"


def _link_of(row: Mapping[str, Any]) -> str:
    """Relative, for this host; a URL of the service's own is shown and leads nowhere, for nobody here has looked at it."""
    return urlsplit(url_of(UUID(row["id"]), row["name"])).path if "id" in row else ""
