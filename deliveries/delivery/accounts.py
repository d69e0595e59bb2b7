"""The accounts as the engine uses them: a provider ready to send, and the retry policy. Read again when they change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings

from channels.base import InvalidOption, Provider
from channels.http import HttpClient
from channels.rates import Rates
from channels.registry import UnknownProvider, provider_class
from deliveries.conf import timings
from deliveries.delivery.enclosures import Enclosures
from deliveries.delivery.media_ids import MediaIds
from deliveries.models.accounts import InDoubtPolicy
from deliveries.retry import Policy
from deliveries.secrets import Unsealable, unseal
from deliveries.sql import Cursor

log = structlog.get_logger(__name__)

UNPACED = Rates()

READ = """
SELECT id, public_id, channel, provider, options, secrets, in_doubt_policy, blind_retries, updated_at
FROM account WHERE id = ANY(%(ids)s)
"""


@dataclass(frozen=True, slots=True)
class LiveAccount:
    """An account that can send, or (``provider`` None) the reason why it cannot."""

    id: int
    channel: str
    updated_at: datetime
    policy: Policy
    receipts_url: str = ""
    rates: Rates = UNPACED
    provider: Provider | None = None
    #: Where the files of its messages are read, and what their vendors call them; None where nothing is sent.
    files: Enclosures | None = None
    media: MediaIds | None = None
    problem: str = ""


class Accounts:
    """The accounts of one worker process. A provider lives as long as its account stays as it is.

    Made on the engine's ``loop``, asked by several task threads.
    """

    def __init__(self, http: HttpClient, loop: asyncio.AbstractEventLoop) -> None:
        self._http = http
        self._loop = loop
        self._files = Enclosures()
        self._media = MediaIds(self._files)
        self._live: dict[int, LiveAccount] = {}
        self._read_at: dict[int, float] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, cursor: Cursor, ids: Sequence[int]) -> Mapping[int, LiveAccount]:
        """The accounts ``ids``, at most two seconds old."""
        now = time.monotonic()
        oldest = now - timings().account_cache_seconds
        stale = [account_id for account_id in set(ids) if self._read_at.get(account_id, float("-inf")) < oldest]
        if stale:
            cursor.execute(READ, {"ids": stale})
            for row in cursor.fetchall():
                self._keep(row)
            self._read_at.update(dict.fromkeys(stale, now))
        return self._live

    def _keep(self, row: Sequence[Any]) -> None:
        account_id, updated_at = row[0], row[-1]
        known = self._live.get(account_id)
        if known is None or known.updated_at != updated_at:
            self._live[account_id] = replace(live(row, self._http), files=self._files, media=self._media)
            if known is not None and known.provider is not None:
                self._loop.call_soon_threadsafe(self._close_later, known.provider)

    async def close(self) -> None:
        """Give back everything that is held open."""
        for account in list(self._live.values()):
            if account.provider is not None:
                await _give_back(account.provider)
        await self._media.close()
        await self._http.close()
        self._files.close()

    def _close_later(self, provider: Provider) -> None:
        """Give back what the old provider holds open, once no call through it can be under way any more."""
        seconds = timings().lease(type(provider))
        self._loop.call_later(seconds, self._close_now, provider)

    def _close_now(self, provider: Provider) -> None:
        task = self._loop.create_task(_give_back(provider))
        self._closing.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._closing.discard)


def live(row: Sequence[Any], http: HttpClient) -> LiveAccount:
    """One account from its row; a mistake in its set-up becomes its ``problem``."""
    account_id, public_id, channel, name, options, sealed, doubt, blind, updated_at = row
    policy = Policy(
        base_seconds=2.0 * timings().scale,
        blind_retries=blind,
        hold_in_doubt=doubt != InDoubtPolicy.RETRY,
    )
    try:
        cls = provider_class(channel, name)
        policy = replace(policy, ask_after_seconds=timings().ask(cls) if doubt == InDoubtPolicy.RECONCILE else None)
        configured = cls.check({**options, **unseal(owner(public_id), bytes(sealed))})
        provider = _open(cls, configured, http)
    except (UnknownProvider, InvalidOption, Unsealable) as error:
        log.error("account_unusable", account=account_id, error=str(error))
        return LiveAccount(account_id, channel, updated_at, policy, problem=unusable(error))
    except Exception as error:  # one row must not keep the messages of all others from being sent
        log.exception("account_unusable", account=account_id)
        return LiveAccount(account_id, channel, updated_at, policy, problem=unusable(error))
    return LiveAccount(
        id=account_id,
        channel=channel,
        updated_at=updated_at,
        policy=policy if not cls.idempotent else idempotent(policy),
        receipts_url=f"{settings.CHASKI_PUBLIC_URL}/receipts/{public_id}" if cls.receipts else "",
        rates=cls.rates(configured),
        provider=provider,
    )


def unusable(error: Exception) -> str:
    """Why an account cannot be used, without its secrets, which the text of an ``error`` of no kind of ours may hold."""
    if isinstance(error, UnknownProvider | InvalidOption | Unsealable):
        return str(error)
    return (
        f"its provider cannot be made from its options and secrets ({type(error).__name__}); set the account up again"
    )


def gone(account_id: int) -> LiveAccount:
    """An account that a message names and the database does not have."""
    now = datetime.now(UTC)
    return LiveAccount(account_id, "", now, Policy(), problem=f"account {account_id} does not exist any more")


def idempotent(policy: Policy) -> Policy:
    """The policy for a provider that knows our key: a repeat is no risk."""
    return Policy(base_seconds=policy.base_seconds, blind_retries=policy.blind_retries, idempotent=True)


def owner(public_id: UUID) -> str:
    """The name that an account's secrets are sealed for."""
    return f"account:{public_id}"


async def _give_back(provider: Provider) -> None:
    """Close ``provider``; what it cannot give back keeps nothing else open."""
    try:
        await provider.close()
    except Exception:
        log.exception("provider_not_closed", provider=provider.name)


def _open(cls: type[Provider], configured: Mapping[str, str], http: HttpClient) -> Provider:
    provider = cls(configured, http)
    provider.call_seconds *= timings().scale
    return provider
