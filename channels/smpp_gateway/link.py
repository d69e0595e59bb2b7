"""One account's link: its binds, kept up, and the way of a message through them.

Made by ``desk``. What it answers is never surer than what is known: nothing written is not sent, anything written and
not answered is in doubt.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog

from channels.base import NotSent
from channels.smpp_codes import OK, slows
from channels.smpp_gateway import pdu
from channels.smpp_gateway.account import GatewayAccount, Patience
from channels.smpp_gateway.bind import Bind, Deliver, NotAnswered, NotBound, NotWritten
from channels.smpp_gateway.exchange import Answer, Outcome, Submission

log = structlog.get_logger(__name__)

_DOUBT = {
    "timeout": "the SMSC was sent it and did not answer in time",
    "connection_lost": "the SMSC was sent it and the connection ended before its answer",
}
_FULL = "every place of the window is taken by messages that the SMSC has not answered"
#: Told what became of a message whose worker had been told that it is in doubt.
Late = Callable[[Submission, Answer], None]


class Refused(Exception):
    """The SMSC took one part not, with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Busy(NotWritten):
    """There was a bind, and no place in its window in time."""


class Link:
    """Belongs to its loop. ``start`` first, ``close`` last."""

    def __init__(self, account: GatewayAccount, patience: Patience, *, deliver: Deliver, late: Late) -> None:
        self.account = account
        self._patience, self._deliver, self._late = patience, deliver, late
        self._binds: list[Bind] = []
        #: Binds that are up or about to be, as far as is known: while there is one, a message waits for it.
        self._trying = account.binds
        self._down = NotBound(NotSent("not_bound", "the gateway has no bind with the SMSC yet"))
        self._wanted = asyncio.Event()
        self._queue: deque[asyncio.Future[None]] = deque()
        self._holding: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[Answer]] = set()

    def start(self) -> None:
        """Bring the binds up, and keep them up."""
        self._holding = [asyncio.create_task(self._hold()) for _ in range(self.account.binds)]

    @property
    def is_up(self) -> bool:
        """Is there a bind?"""
        return any(bind.is_up for bind in self._binds)

    async def submit(self, submission: Submission) -> Answer:
        """Send a message; what became of it, within ``submission.seconds``.

        An answer that comes later is told to ``late``. Nothing is written after those seconds.
        """
        task = asyncio.create_task(self._send(submission))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        done, _ = await asyncio.wait({task}, timeout=submission.seconds)
        if done:
            return task.result()
        task.add_done_callback(lambda ended: None if ended.cancelled() else self._late(submission, ended.result()))
        return Answer(Outcome.IN_DOUBT, code="timeout", detail=_DOUBT["timeout"])

    async def close(self) -> None:
        """Wait some seconds for the answers that are due, unbind, end. Nothing may be submitted meanwhile."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=self._patience.ending)
        for task in self._holding:
            task.cancel()
        self._trying = 0
        self._wake(len(self._queue))
        await asyncio.gather(*(bind.close() for bind in self._binds), *self._holding, return_exceptions=True)

    # -- a message

    async def _send(self, submission: Submission) -> Answer:
        """The first part alone: whatever refuses a message refuses that, and nothing of it was taken. Then the rest at once."""
        now = asyncio.get_running_loop().time()
        try:
            taken: list[str | BaseException] = [await self._offer(submission, 0, now + submission.seconds / 2)]
        except Busy:
            return Answer(Outcome.BUSY, code="window_full", detail=_FULL)
        except NotWritten as error:
            return Answer(Outcome.NOT_SENT, code="not_bound", detail=str(error))
        except NotBound as error:
            return _not_bound(error)
        except NotAnswered as error:
            return Answer(Outcome.IN_DOUBT, code=error.code, detail=_DOUBT[error.code])
        except Refused as error:
            return Answer(Outcome.REFUSED, status=error.status)
        ends = now + submission.seconds
        rest = [self._insist(submission, number, ends) for number in range(1, len(submission.parts))]
        return _whole(taken + await asyncio.gather(*rest, return_exceptions=True))

    async def _insist(self, submission: Submission, number: int, until: float) -> str:
        """A later part is offered again while the SMSC throttles: a message that stops half-way reaches nobody."""
        wait = self._patience.again
        while True:
            try:
                return await self._offer(submission, number, until)
            except Refused as error:
                if not slows(error.status) or asyncio.get_running_loop().time() + wait >= until:
                    raise
            await asyncio.sleep(wait)

    async def _offer(self, submission: Submission, number: int, until: float) -> str:
        """The SMSC's id for one part. Raises ``NotWritten``, ``NotBound``, ``NotAnswered``, ``Refused``."""
        body = pdu.submit_body(submission, number)
        bind = await self._free(until)
        try:
            said = await bind.submit(body)
        finally:
            self._next()
        if said.status != OK:
            raise Refused(said.status)
        return pdu.message_id(said.body)

    async def _free(self, until: float) -> Bind:
        """A bind that takes one more message now. Raises ``NotBound``, and ``Busy`` when the loop's time is ``until``."""
        while asyncio.get_running_loop().time() < until:
            up = [bind for bind in self._binds if bind.is_up]
            best = max(up, key=lambda bind: bind.window.free, default=None)
            if best is not None and best.window.free:
                return best
            if best is None and not self._trying:
                self._wanted.set()
                raise self._down
            await self._turn(until)
        raise Busy("its worker waits no longer")

    async def _turn(self, until: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout_at(until):
                await turn
        except TimeoutError:
            self._next()  # it may have been this one's turn a moment ago
            if not self.is_up:
                raise self._down from None
            raise Busy(_FULL) from None

    def _next(self) -> None:
        """As many as there is room for look again, the longest waiting first."""
        self._wake(sum(bind.window.free for bind in self._binds if bind.is_up))

    def _wake(self, count: int) -> None:
        while self._queue and count:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1

    # -- the binds

    async def _hold(self) -> None:
        """Keep one bind up."""
        failures = 0
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                bind = await Bind.open(self.account, self._patience, self._deliver)
            except NotBound as error:
                self._down = error
                log.warning("smpp_not_bound", account=self.account.id, code=error.error.code)
            else:
                await self._until_it_ends(bind)
                if asyncio.get_running_loop().time() - begun > self._patience.steady:
                    failures = -1
            self._trying -= 1
            self._wake(len(self._queue))
            failures += 1
            await self._rest(failures)
            self._trying += 1

    async def _until_it_ends(self, bind: Bind) -> None:
        log.info("smpp_bound", account=self.account.id)
        self._binds.append(bind)
        self._next()
        try:
            await bind.ended.wait()
        finally:
            if bind.ended.is_set():
                self._binds.remove(bind)
        self._down = NotBound(NotSent("not_bound", "the SMSC ended the bind; the gateway is about to bind again"))
        log.warning("smpp_bind_ended", account=self.account.id)

    async def _rest(self, failures: int) -> None:
        """Before the next try: not at all after a bind that held, else ever longer; a message that wants out ends it early."""
        if not failures:
            return
        patience, refused = self._patience, bool(self._down.status)
        first, most = (patience.refused, patience.refused_most) if refused else (patience.again, patience.again_most)
        longest = min(most, first * 2 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 - a spread
        least = min(longest, patience.refused if refused else patience.again_least)
        self._wanted.clear()  # whoever asks from now on, be it a message after `resume`, has it tried as soon as may be
        await asyncio.sleep(least)
        with suppress(TimeoutError):
            async with asyncio.timeout(longest - least):
                await self._wanted.wait()


def _not_bound(error: NotBound) -> Answer:
    if error.status:
        return Answer(Outcome.BIND_REFUSED, status=error.status)
    return Answer(Outcome.NOT_SENT, code=error.error.code, detail=error.error.detail)


def _whole(parts: list[str | BaseException]) -> Answer:
    """What the answers to all parts come to. Some taken and some not is a doubt: a phone may show them or wait for the rest."""
    ids = [part for part in parts if isinstance(part, str)]
    if len(ids) == len(parts):
        return Answer(Outcome.ACCEPTED, provider_message_id=ids[-1])
    unanswered = next((part for part in parts if isinstance(part, NotAnswered)), None)
    if unanswered is not None:
        return Answer(Outcome.IN_DOUBT, code=unanswered.code, detail=_DOUBT[unanswered.code], taken=len(ids))
    refused = next((part for part in parts if isinstance(part, Refused)), None)
    if refused is not None:
        return Answer(Outcome.REFUSED, status=refused.status, taken=len(ids))
    return Answer(
        Outcome.IN_DOUBT,
        code="partly_taken",
        detail=f"the SMSC took {len(ids)} of {len(parts)} parts, then there was no way to it",
        taken=len(ids),
    )
