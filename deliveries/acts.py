"""What services and operators do to messages: cancel, redeliver, resolve, pause, suppress. Every act is audited.

Called by the API, the admin and the commands. Each is one transaction; the doorbell is rung after it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import connection, transaction

from channels.media import MEDIA
from chaski.vocabulary import Lane, Status
from deliveries import lifecycle, pausing
from deliveries.delivery.settle import release
from deliveries.doorbell import doorbell
from deliveries.intake.accept import lock_keys
from deliveries.lifecycle import Move
from deliveries.models import Account, Audit, Message, Pause, Service, Suppression
from deliveries.models.control import PauseScope
from deliveries.models.messages import LANES
from deliveries.sql import Cursor


class NotCancelable(ValueError):
    """The message cannot be withdrawn any more; the text says why."""


class NotRedeliverable(ValueError):
    """The message is in no state from which it can be sent again; the text says why."""


class NotInDoubt(ValueError):
    """Only a message in doubt can be resolved; the text says what it is instead."""


WITHDRAW = """
DELETE FROM pending WHERE message_id = %(id)s AND lease_until IS NULL RETURNING service_id, ordering_key
"""

#: Before its message, as whoever moves one locks.
PLACE = "SELECT 1 FROM pending WHERE message_id = %(id)s FOR UPDATE"

#: With an ordering key it goes behind what waits with that key: its old place went to its successors when it was given up,
#: and what is in flight now must not be overtaken. The position is drawn under the key's lock, like intake's.
PUT_BACK = """
INSERT INTO pending (message_id, channel, lane, service_id, account_id, batch_id, due_at, expires_at, blocked,
    waiting_for, ordering_key, position, solitary, suspicion, attempt_count, tries, crash_count, blind_count)
SELECT m.id, m.channel, m.lane, m.service_id, m.account_id, m.batch_id, chaski_now(), m.expires_at,
    behind.someone, CASE WHEN behind.someone THEN 'predecessor' ELSE '' END, m.ordering_key,
    CASE WHEN m.ordering_key <> '' THEN nextval('pending_position') END, false, 0, m.attempt_count, 0, 0, 0
FROM message m CROSS JOIN LATERAL (SELECT m.ordering_key <> '' AND EXISTS (
    SELECT 1 FROM pending p WHERE p.service_id = m.service_id AND p.ordering_key = m.ordering_key
        AND p.ordering_key <> '') AS someone) behind
WHERE m.id = %(id)s
"""

#: Its files are needed for as long as it may go out now, as at its acceptance.
KEEP_FILES = """
UPDATE file SET kept_until = greatest(kept_until, m.expires_at + interval '31 days')
FROM message m CROSS JOIN LATERAL jsonb_array_elements(coalesce(m.content -> 'attachments', '[]')) AS a
WHERE m.id = %(id)s AND file.id = (a ->> 'id')::uuid AND kept_until < m.expires_at + interval '30 days'
"""

FREE = """
UPDATE pending SET blocked = false, waiting_for = '', due_at = chaski_now(), suspicion = 0, expires_at = %(expires_at)s,
    blocking_at = NULL
WHERE message_id = %(id)s AND lease_until IS NULL RETURNING service_id, ordering_key
"""


def cancel(message: Message, *, actor: str, reason: str = "") -> None:
    """Withdraw a waiting message. Raises ``NotCancelable`` when it is under way, handed over or final."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(WITHDRAW, {"id": message.pk})
        withdrawn = cursor.fetchone()
        moved = withdrawn and lifecycle.apply(
            cursor, [Move(message.pk, (Status.CANCELED,), actor=actor, reason=reason or "withdrawn")]
        )
        if not moved:
            raise NotCancelable(_why_not_canceled(message))
        release(cursor, [withdrawn])
        audit(actor, "cancel", str(message.pk), reason)


def _why_not_canceled(message: Message) -> str:
    message.refresh_from_db(fields=["status"])
    if message.status == Status.QUEUED:
        return "it is being sent at this moment; ask again in a minute"
    return f"it is {message.status}; only a message that still waits can be canceled"


def redeliver(message: Message, *, actor: str, reason: str = "") -> None:
    """Send a failed, undelivered or expired message again, with a new deadline. Raises ``NotRedeliverable``.

    One with an ordering key goes behind those that wait with the same key.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        if message.ordering_key:
            lock_keys(cursor, {(message.service_id, message.ordering_key)})
        move = Move(
            message.pk,
            (Status.QUEUED,),
            actor=actor,
            reason=reason or "redelivered",
            redelivery=1,
            expires_at=_new_deadline(cursor, message),
            only_from=(Status.FAILED, Status.UNDELIVERED, Status.EXPIRED),
        )
        if not lifecycle.apply(cursor, [move]):
            message.refresh_from_db(fields=["status"])
            raise NotRedeliverable(
                f"it is {message.status}; only a failed, undelivered or expired message can be redelivered"
            )
        cursor.execute(PUT_BACK, {"id": message.pk})
        cursor.execute(KEEP_FILES, {"id": message.pk})
        audit(actor, "redeliver", str(message.pk), reason)
    doorbell.ring(message.channel, Lane(LANES[message.lane]), [message.pk])


def _new_deadline(cursor: Cursor, message: Message) -> datetime:
    cursor.execute("SELECT chaski_now()")
    now: datetime = cursor.fetchone()[0]
    return now + MEDIA[message.channel].expires_after


def resolve(message: Message, verdict: str, *, actor: str, reason: str) -> None:
    """Decide a message in doubt: ``sent``, ``failed`` or ``retry`` with a new deadline. Raises ``NotInDoubt``."""
    path = {"sent": Status.SENT, "failed": Status.FAILED, "retry": Status.QUEUED}[verdict]
    with transaction.atomic(), connection.cursor() as cursor:
        words = f"resolved as {verdict}: {reason}"
        expires_at = _new_deadline(cursor, message) if verdict == "retry" else None
        move = Move(message.pk, (path,), actor=actor, reason=words, only_from=(Status.IN_DOUBT,), expires_at=expires_at)
        cursor.execute(PLACE, {"id": message.pk})
        if not lifecycle.apply(cursor, [move]):
            message.refresh_from_db(fields=["status"])
            raise NotInDoubt(f"it is {message.status}, not in doubt")
        cursor.execute(FREE if verdict == "retry" else WITHDRAW, {"id": message.pk, "expires_at": expires_at})
        if verdict != "retry":
            release(cursor, cursor.fetchall())
        audit(actor, "resolve", str(message.pk), reason, {"verdict": verdict})
    if verdict == "retry":
        doorbell.ring(message.channel, Lane(LANES[message.lane]), [message.pk])


def pause(scope: PauseScope, value: str, *, actor: str, reason: str = "") -> bool:
    """Stop claiming what ``scope`` and ``value`` name; False when it was paused already."""
    with transaction.atomic():
        _, made = Pause.objects.get_or_create(scope=scope, value=value, defaults={"actor": actor})
        audit(actor, "pause", f"{scope}:{value}", reason)
    pausing.recent.forget()
    return made


def resume(scope: PauseScope, value: str, *, actor: str, reason: str = "") -> bool:
    """Claim again; False when nothing was paused. Resuming an account also ends its stop for wrong credentials."""
    with transaction.atomic():
        count, _ = Pause.objects.filter(scope=scope, value=value).delete()
        if scope is PauseScope.ACCOUNT:
            stopped = Account.objects.filter(pk=int(value), stopped_at__isnull=False)
            count += stopped.update(stopped_at=None, stopped_reason="")
        audit(actor, "resume", f"{scope}:{value}", reason)
    pausing.recent.forget()
    return bool(count)


def suppress(channel: str, recipient: str, *, service_id: int | None, actor: str, reason: str) -> bool:
    """Never write to ``recipient`` (normalised) on ``channel``; False when it was suppressed already."""
    with transaction.atomic():
        _, made = Suppression.objects.get_or_create(
            channel=channel,
            recipient=recipient,
            service=_service(service_id),
            defaults={"actor": actor, "reason": reason[:500]},
        )
        audit(actor, "suppress", f"{channel}:suppression", reason)
    return made


def unsuppress(channel: str, recipient: str, *, service_id: int | None, actor: str, reason: str = "") -> bool:
    """Take ``recipient`` off the list; False when it was not on it."""
    with transaction.atomic():
        found = Suppression.objects.filter(channel=channel, recipient=recipient, service=_service(service_id))
        count, _ = found.delete()
        if count:
            audit(actor, "unsuppress", f"{channel}:suppression", reason)
    return bool(count)


def _service(service_id: int | None) -> Service | None:
    return None if service_id is None else Service.objects.get(pk=service_id)


def audit(actor: str, action: str, target: str, reason: str = "", detail: dict[str, Any] | None = None) -> None:
    """Write down who did what, in the caller's transaction. ``target`` holds ids, never recipients."""
    Audit.objects.create(actor=actor[:150], action=action, target=target[:150], reason=reason, detail=detail or {})
