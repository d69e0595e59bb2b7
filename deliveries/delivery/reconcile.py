"""Reconciling: asking the provider whether it has a message whose answer never came, instead of sending it again blindly.

Started by ``tasks`` in each worker process, on a thread of its own beside the send path. ``settle`` leaves an inquiry for
each doubt of an account with the policy ``reconcile``; here it is asked, and ``inquiries`` concludes. An ask is no attempt:
it has a small lease on the inquiry alone, changes nothing at the provider, and the message stays held meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
import structlog

from channels.base import InDoubt, Misconfigured, SendError
from channels.http import HttpClient
from deliveries.conf import timings
from deliveries.delivery.accounts import Accounts, LiveAccount, gone
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.inquiries import Asked, Finding, conclude, take
from deliveries.delivery.leases import PATIENCE
from deliveries.delivery.sending import outbound
from deliveries.lineage import guard
from deliveries.retry import Policy
from deliveries.sql import Cursor, is_away, is_lock_wait

T = TypeVar("T")
log = structlog.get_logger(__name__)


async def ask(asked: Asked, account: LiveAccount) -> Finding:
    """Ask the provider of ``account``. Never raises: what is no clear answer is an error as a value."""
    if account.provider is None:
        return Misconfigured("account_unusable", account.problem)
    try:
        async with asyncio.timeout(timings().deadline(type(account.provider))):
            return await account.provider.find(outbound(asked, account, asked.now), asked.since)
    except SendError as error:
        return error
    except TimeoutError:
        return InDoubt("deadline", "the provider did not answer before the deadline")
    except Exception as error:
        log.exception("provider_raised", message_id=str(asked.id), account=account.id)
        return InDoubt("provider_raised", type(error).__name__)


class Reconciler:
    """Asks what is due, every few seconds, from a thread of its own; the requests go out on the engine's ``loop``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._connection = EngineConnection()
        self._stopping = threading.Event()
        self._accounts: Accounts | None = None
        self._thread = threading.Thread(target=self._run, name="chaski-reconciler", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more inquiries; those under way are asked again by others once their lease ends."""
        self._stopping.set()

    def finish(self, seconds: float) -> None:
        """Wait, at most ``seconds``, until the thread has given back what it held open."""
        self._thread.join(seconds)

    def _run(self) -> None:
        # Accounts of its own: the send path's belong to its threads, and asks must not use up its connections.
        self._accounts = self._on_loop(self._open())
        while not self._stopping.wait(timings().ask_seconds):
            try:
                self.look()
            except psycopg.Error as error:
                log.warning("inquiries_wait_for_the_database", error=type(error).__name__)
            except Exception:  # this thread is the process's only one that asks: it must not end
                log.exception("inquiries_not_made")
        self._on_loop(self._accounts.close())
        self._connection.close()

    def look(self) -> int:
        """Ask what is due; how many asks there were, none in a database that is held. Raises ``psycopg.Error``."""
        with self._connection.transaction() as cursor:
            if guard().look(cursor).held:
                return 0
            due = take(cursor)
            accounts = self._accounts_of(cursor, due)
        findings = self._on_loop(self._ask_all(due, accounts)) if due else []
        for asked, finding in zip(due, findings, strict=True):
            then = self._concluded(asked, finding, accounts[asked.account_id].policy)
            log.info("asked_the_provider", message_id=str(asked.id), attempt=asked.number, ask=asked.asked, then=then)
        return len(due)

    def _concluded(self, asked: Asked, finding: Finding, policy: Policy) -> str:
        """Conclude one, apart from the others: what cannot be written tells as little as no answer."""
        try:
            with self._connection.transaction() as cursor:
                cursor.execute(PATIENCE)
                return conclude(cursor, asked, finding, policy)
        except (psycopg.Error, ValueError) as error:
            if is_away(error) and not is_lock_wait(error):
                raise  # the next one would fail as well; their leases end, and they are asked again
            log.warning("finding_not_written", message_id=str(asked.id), error=type(error).__name__)
            unwritten = InDoubt("not_written", f"what the provider said could not be written: {type(error).__name__}")
        with self._connection.transaction() as cursor:
            return conclude(cursor, asked, unwritten, policy)

    def _accounts_of(self, cursor: Cursor, due: Sequence[Asked]) -> Mapping[int, LiveAccount]:
        assert self._accounts is not None
        wanted = sorted({asked.account_id for asked in due})
        known = self._accounts.get(cursor, wanted)
        return {account_id: known.get(account_id) or gone(account_id) for account_id in wanted}

    async def _ask_all(self, due: Sequence[Asked], accounts: Mapping[int, LiveAccount]) -> list[Finding]:
        return await asyncio.gather(*(ask(asked, accounts[asked.account_id]) for asked in due))

    async def _open(self) -> Accounts:
        return Accounts(HttpClient(), self._loop)

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


_reconciler: Reconciler | None = None


def start(loop: asyncio.AbstractEventLoop) -> None:
    """Ask from this process, on ``loop``, from now on."""
    global _reconciler
    _reconciler = Reconciler(loop)
    _reconciler.start()


def stop() -> None:
    """Ask no more."""
    if _reconciler is not None:
        _reconciler.stop()


def finish(seconds: float) -> None:
    """Wait for the end of it, at most ``seconds``."""
    if _reconciler is not None:
        _reconciler.finish(seconds)
