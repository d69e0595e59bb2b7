"""One call to a provider, from a claimed message to an outcome. Runs on the engine's loop; touches no database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from channels.attachments import Attachment, Carriage
from channels.base import ContentRefused, InDoubt, Misconfigured, NotSent, Outbound, Provider, SendError
from channels.written import watch_writing
from chaski.vocabulary import ErrorClass
from deliveries.delivery.accounts import LiveAccount
from deliveries.delivery.claim import Claimed
from deliveries.delivery.crashes import crash_point
from deliveries.intake import attachments
from deliveries.retry import Decision, Outcome
from deliveries.unsubscribing import url_of

if TYPE_CHECKING:
    from deliveries.delivery.inquiries import Asked

log = structlog.get_logger(__name__)


async def send(claimed: Claimed, account: LiveAccount, deadline: float, started: float) -> Outcome:
    """Hand ``claimed`` to its provider before ``deadline`` (the loop's time), which its wait for its slot moves. Never raises.

    ``started`` is the monotonic time at which its claim began.
    """
    if account.provider is None:
        return Outcome.of_error(Misconfigured("account_unusable", account.problem))
    if (wait := claimed.start - time.monotonic()) > 0:
        deadline += wait
        await asyncio.sleep(wait)
    if asyncio.get_running_loop().time() >= deadline:
        # A claim that waited, or a process that was stopped meanwhile: the lease may be another's by now.
        return Outcome.of_error(NotSent("no_time_left", "the call's time was over before it began"))
    crash_point("in_send", claimed.recipient)
    writing = watch_writing()
    outcome = await _call(claimed, account, account.provider, deadline, moment(claimed, started, time.monotonic()))
    if writing.at is None or outcome.error_class == ErrorClass.NOT_SENT:
        return outcome
    return replace(outcome, written_at=moment(claimed, started, writing.at))


async def _call(claimed: Claimed, account: LiveAccount, provider: Provider, deadline: float, at: datetime) -> Outcome:
    """Whatever a provider raises besides a ``SendError`` counts as in doubt: it may have written its request."""
    try:
        going = _kept(outbound(claimed, account, at), account, provider, deadline)
        room = account.files.room(going, provider, deadline) if account.files and going.attachments else nullcontext()
        async with room, asyncio.timeout_at(deadline):
            answer = await provider.send(going)
        crash_point("after_answer", claimed.recipient)
        return Outcome.of_answer(answer)
    except SendError as error:
        return Outcome.of_error(error)
    except TimeoutError:
        return Outcome.of_error(InDoubt("deadline", "the provider did not answer before the deadline"))
    except Exception as error:
        log.exception("provider_raised", message_id=str(claimed.id), account=account.id)
        return Outcome.of_error(InDoubt("provider_raised", type(error).__name__))


def moment(claimed: Claimed, started: float, monotonic: float) -> datetime:
    """The database's time, carried on by our monotonic clock: the worker's wall clock decides nothing."""
    return claimed.opened_at + timedelta(seconds=monotonic - started)


def outbound(claimed: Claimed | Asked, account: LiveAccount, at: datetime) -> Outbound:
    """The message as its provider gets it at ``at``, by the database's clock.

    Raises ``ContentRefused`` for a row that intake cannot have written: nothing has left, so it is no doubt.
    """
    content = claimed.content
    if not _readable(claimed):
        raise ContentRefused(
            "unreadable_row", "its content, options or metadata are not of the kind that intake writes"
        )
    return Outbound(
        message_id=str(claimed.id),
        channel=account.channel,
        to=claimed.recipient,
        attempt=claimed.number,
        text=content.get("text", ""),
        subject=content.get("subject", ""),
        html=content.get("html", ""),
        options=claimed.options,
        metadata=claimed.metadata,
        reference=claimed.reference,
        receipts_url=account.receipts_url,
        attachments=_attachments(content, account) if "attachments" in content else (),
        unsubscribe_url=url_of(claimed.id) if claimed.options.get("unsubscribe") is True else "",
        at=at,
    )


def _attachments(content: Mapping[str, Any], account: LiveAccount) -> tuple[Attachment, ...]:
    reader = account.files.reader if account.files else attachments.unread
    try:
        return attachments.of(content, reader)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise ContentRefused("unreadable_row", "its attachments are not of the form that intake writes") from None


def _kept(going: Outbound, account: LiveAccount, provider: Provider, deadline: float) -> Outbound:
    """With what knows the vendor's names for its files, which it waits for as long as leaves the provider its time."""
    media, takes = account.media, provider.takes
    if media is None or takes is None or takes.carriage is not Carriage.KEPT or not going.attachments:
        return going
    until = deadline - provider.call_seconds
    return replace(
        going, attachments=tuple(media.kept(each, account.id, provider, until) for each in going.attachments)
    )


def tell(claimed: Claimed, outcome: Outcome, decision: Decision) -> None:
    """One log line for an attempt that was not accepted, and what happens then."""
    if outcome.accepted:
        return
    log.info(
        "attempt_not_accepted",
        message_id=str(claimed.id),
        attempt=claimed.number,
        account=claimed.account_id,
        error_class=outcome.error_class,
        code=outcome.code,
        then=str(decision.path[-1]),
    )


def _readable(claimed: Claimed | Asked) -> bool:
    """What the database checks of these columns is that they are JSON; somebody may have written them by hand."""
    parts: tuple[object, ...] = (claimed.content, claimed.options, claimed.metadata)
    if not all(isinstance(part, dict) for part in parts):
        return False
    return all(isinstance(claimed.content.get(name, ""), str) for name in ("text", "subject", "html"))
