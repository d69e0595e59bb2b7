"""The whole life of one message in order, in data and in plain words. Called by `manage.py trace`, the API and the admin."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chaski.vocabulary import ErrorClass, Status
from deliveries import reading
from deliveries.delivery.inquiries import RECONCILED
from deliveries.lifecycle import ASIDE
from deliveries.models import (
    Account,
    Attempt,
    Audit,
    Contact,
    Event,
    Inquiry,
    Message,
    Pending,
    Receipt,
    Reply,
    Reroute,
)
from deliveries.models.evidence import ReceiptEffect
from deliveries.models.services import OrderThen

_WAITS = {
    "schedule": "its time to be sent",
    "retry": "its next attempt",
    "rate_limit": "the provider to take more",
    "breaker": "the provider to recover",
    "predecessor": "the message before it with the same ordering key",
    "quiet_hours": "the end of the recipient's quiet hours",
    "quota": "the service's quota",
    "paused": "an operator to resume what is paused",
    "operator": "an operator",
}
REPLIES_SHOWN = 50
_EFFECTS = dict(ReceiptEffect.choices)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. ``words`` say it to people.

    ``kind`` is event, attempt, inquiry, reroute, receipt, reply or act.
    """

    at: datetime
    kind: str
    words: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """A message, everything that happened to it in order, and what it waits for."""

    message: Message
    status: Status
    waiting: reading.Waiting | None
    entries: list[Entry]
    #: Of a message that was not allowed: when its recipient last wrote to its account, as far as we were told.
    last_reply_at: datetime | None = None

    @property
    def last_reply(self) -> str:
        """In words when the recipient last wrote; empty where that matters nothing, or nobody told us."""
        if self.last_reply_at is None:
            return ""
        return f"the recipient last wrote to this account at {self.last_reply_at:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def waits(self) -> str:
        """In words what the message waits for; empty when it waits for nothing."""
        if self.waiting is None:
            return ""
        if self.waiting.ahead is not None:
            return _behind(self.waiting.ahead, self.waiting.until)
        what = _WAITS.get(self.waiting.reason, self.waiting.reason)
        return f"waits for {what}" + (f" until {_moment(self.waiting.until)}" if self.waiting.until else "")


def _behind(ahead: reading.Ahead, until: datetime | None) -> str:
    blocked = f", blocked since {_moment(ahead.since)}" if ahead.since else ""
    then = "that one steps aside" if ahead.then == OrderThen.SKIP else "this one fails"
    return f"waits for message {ahead.id} ahead of it in its order{blocked}" + (
        f"; {then} at {_moment(until)}" if until else ""
    )


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def trace(message: Message) -> Trace:
    """The life of ``message``: ten queries at most, whatever happened."""
    pending = Pending.objects.filter(pk=message.pk).first()
    now, pauses = reading.now_and_pauses()
    accounts = Account.objects.filter(pk=message.account_id).only("channel", "provider", "options")
    slots = reading.until_slots([pending], accounts, now) if pending is not None else {}
    ahead = reading.aheads([pending]).get(message.pk) if pending is not None else None
    looks = (_events, _attempts, _inquiries, _reroutes, _receipts, _replies, _acts)
    entries = [entry for look in looks for entry in look(message)]
    return Trace(
        message=message,
        status=reading.effective_status(message, pending),
        waiting=reading.waiting(pending, pauses, now, slots, ahead),
        entries=sorted(entries, key=lambda entry: entry.at),
        last_reply_at=_last_reply_at(message) if message.error_class == ErrorClass.NOT_ALLOWED_NOW else None,
    )


def _last_reply_at(message: Message) -> datetime | None:
    wrote = Contact.objects.filter(account_id=message.account_id, person=message.recipient)
    return wrote.values_list("replied_at", flat=True).first()


def _events(message: Message) -> list[Entry]:
    found = []
    for event in Event.objects.filter(message_id=message.pk).order_by("sequence"):
        by = f" by {event.actor}" if event.actor else ""
        why = f": {event.reason}" if event.reason else ""
        words = "accepted and queued" if event.sequence == 1 else f"{event.status.replace('_', ' ')}{by}{why}"
        words = event.reason if event.reason.startswith(ASIDE) else words
        data = {
            "sequence": event.sequence,
            "status": event.status,
            "actor": event.actor,
            "attempt": event.attempt,
            "reason": event.reason,
        }
        found.append(Entry(event.at, "event", words, data))
    return found


def _attempts(message: Message) -> list[Entry]:
    accounts = dict(Account.objects.values_list("pk", "name"))
    found = []
    for attempt in Attempt.objects.filter(message_id=message.pk).order_by("number"):
        data = attempt_data(attempt, accounts.get(attempt.account_id, ""))
        answer = " ".join(part for part in (attempt.outcome, attempt.code, attempt.detail) if part) or "under way"
        words = f"attempt {attempt.number} through {data['account']}: {answer}"
        if attempt.written_at and attempt.outcome != "accepted":
            words += f"; its request was written at {attempt.written_at:%H:%M:%S.%f}"[:-3]
        if attempt.late and attempt.late["code"] == RECONCILED:
            words += f"; asked for it, the provider has it ({attempt.late['detail']})"
        elif attempt.late:
            words += f"; after its lease the worker reported {attempt.late['outcome']} {attempt.late['code']}".rstrip()
        found.append(Entry(attempt.begun_at or attempt.opened_at, "attempt", words, data))
    return found


def attempt_data(attempt: Attempt, account: str) -> dict[str, Any]:
    """One attempt as the API shows it."""
    return {
        "number": attempt.number,
        "account": account,
        "opened_at": attempt.opened_at,
        "begun_at": attempt.begun_at,
        "written_at": attempt.written_at,
        "finished_at": attempt.finished_at,
        "outcome": attempt.outcome,
        "code": attempt.code,
        "detail": attempt.detail,
        "provider_message_id": attempt.provider_message_id,
        "task_id": attempt.task_id,
        "worker": attempt.worker,
        "late": attempt.late,
    }


def _inquiries(message: Message) -> list[Entry]:
    found = []
    for inquiry in Inquiry.objects.filter(message_id=message.pk):
        words = f"asked the provider whether it has it, {inquiry.asked} times" if inquiry.asked else "held in doubt"
        words += f": {inquiry.said}" if inquiry.said else ""
        words += f"; it is asked at {inquiry.due_at:%H:%M:%S} UTC" if inquiry.due_at else "; it is asked no more"
        data = {"attempt": inquiry.number, "asked": inquiry.asked, "said": inquiry.said, "due_at": inquiry.due_at}
        found.append(Entry(inquiry.asked_at or inquiry.since, "inquiry", words, data))
    return found


def _reroutes(message: Message) -> list[Entry]:
    found = list(Reroute.objects.filter(message_id=message.pk).order_by("pk"))
    accounts = dict(Account.objects.values_list("pk", "name")) if found else {}
    return [
        Entry(
            each.at,
            "reroute",
            f"went from account {accounts.get(each.from_account_id, each.from_account_id)} to"
            f" {accounts.get(each.to_account_id, each.to_account_id)}: {each.reason}",
            {"from": each.from_account_id, "to": each.to_account_id, "reason": each.reason},
        )
        for each in found
    ]


def receipt_data(receipt: Receipt) -> dict[str, Any]:
    """One receipt as the API shows it."""
    return {
        "kind": receipt.kind,
        "at": receipt.at,
        "received_at": receipt.received_at,
        "applied_at": receipt.applied_at,
        "effect": receipt.effect,
        "code": receipt.code,
        "detail": receipt.detail,
    }


def _receipts(message: Message) -> list[Entry]:
    found = []
    for receipt in Receipt.objects.filter(message_id=message.pk).order_by("pk"):
        said = " ".join(part for part in (receipt.kind, receipt.code, receipt.detail) if part)
        words = f"receipt: {said} ({_EFFECTS.get(receipt.effect, 'waits to be applied')})"
        found.append(Entry(receipt.received_at, "receipt", words, receipt_data(receipt)))
    return found


def _replies(message: Message) -> list[Entry]:
    """That they came, not what they say: a reply is read where its service reads it."""
    found = []
    for reply in Reply.objects.filter(message_id=message.pk).order_by("pk")[:REPLIES_SHOWN]:
        words = "the recipient replied" + (f" and asked to {reply.wish}" if reply.wish else "")
        data = {"id": reply.pk, "at": reply.at, "wish": reply.wish, "told_at": reply.told_at}
        found.append(Entry(reply.received_at, "reply", words, data))
    return found


def _acts(message: Message) -> list[Entry]:
    return [
        Entry(
            act.at,
            "act",
            f"{act.actor} asked for: {act.action}" + (f" ({act.reason})" if act.reason else ""),
            {"actor": act.actor, "action": act.action, "reason": act.reason},
        )
        for act in Audit.objects.filter(target=str(message.pk)).order_by("pk")
    ]
