"""The engine of one worker process: claims in task threads, sends on one asyncio loop, records on one thread.

Called by the delivery tasks. No transaction and no connection is held while providers answer.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

import structlog
import uvloop

from channels.base import Provider
from channels.http import HttpClient
from channels.registry import providers
from chaski.vocabulary import ErrorClass, Lane, Status
from deliveries import lineage
from deliveries.conf import limits, timings
from deliveries.delivery.accounts import Accounts, LiveAccount
from deliveries.delivery.begin import Begun
from deliveries.delivery.breakers import OUR_OWN
from deliveries.delivery.claim import Claimed, Taken
from deliveries.delivery.claims import Claims
from deliveries.delivery.crashes import crash_point
from deliveries.delivery.hands import Hand, Tally
from deliveries.delivery.recorder import Recorder, Result
from deliveries.delivery.sending import moment, send, tell
from deliveries.delivery.settle import Settlement
from deliveries.delivery.window import PATIENCE_SECONDS, Suspects, Window
from deliveries.doorbell import doorbell
from deliveries.retry import Decision, History, Outcome, decide

log = structlog.get_logger(__name__)
_EXPIRED = Outcome(ErrorClass.EXPIRED, "expired", "expires_at passed before the call could begin")
_SUPPRESSED = Outcome(ErrorClass.RECIPIENT_REFUSED, "suppressed", "the recipient is on the suppression list")
#: What says that a provider is away, or has more than it can take. A throttle does where it is meant for the whole account.
OVERLOADED = frozenset({ErrorClass.NOT_SENT, ErrorClass.TRANSIENT, ErrorClass.IN_DOUBT})
#: Between two claims while an account is full and nothing else is due.
LOOK_AGAIN_SECONDS = 0.25
#: Calls of one claim that begin in one turn of the loop.
BESIDE = 10
#: For good-byes (SMTP's QUIT above all) at the end of the process.
CLOSE_SECONDS = 5.0


class Engine:
    """Everything that one worker process shares between its tasks. Thread-safe."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.loop = uvloop.new_event_loop()
        self.claimed_at: float | None = None
        self._stopping = threading.Event()
        self._claims = Claims(worker)
        self.recorder = Recorder(self.in_flight)
        self._windows: dict[str, Window] = {}
        #: One at work on a channel and lane; a further bell only wakes it.
        self._hands: dict[tuple[str, Lane], Hand] = {}
        self._lock = threading.RLock()
        self._suspects = Suspects()
        self._help_at: dict[tuple[str, Lane], float] = {}
        self._accounts: Accounts | None = None
        self._thread = threading.Thread(target=self._run_loop, name="chaski-loop", daemon=True)

    def start(self) -> None:
        """Start the loop and the recorder, once the lineage's witnesses were asked."""
        lineage.guard()
        self._thread.start()
        self.recorder.start()
        self._accounts = asyncio.run_coroutine_threadsafe(self._open(), self.loop).result(10)

    async def _open(self) -> Accounts:
        return Accounts(HttpClient(), self.loop)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def stop_claiming(self) -> None:
        """Take nothing more; what is under way goes on."""
        self._stopping.set()

    def finish(self, seconds: float) -> bool:
        """Wait until every call is recorded, at most ``seconds``, then close what is open; was it all recorded?"""
        until = time.monotonic() + seconds
        while self.in_flight() and time.monotonic() < until:
            time.sleep(0.05)
        if self._accounts is not None:
            asyncio.run_coroutine_threadsafe(self._accounts.close(), self.loop).result(CLOSE_SECONDS)
        return not self.in_flight()

    def in_flight(self) -> int:
        """Calls under way or not yet recorded, on all channels."""
        return sum(window.taken for window in list(self._windows.values()))

    def drain(self, channel: str, lane: Lane, ids: Sequence[str], task_id: str) -> Tally:
        """Send what is due on ``channel`` in ``lane`` or a more urgent one, ``ids`` first, for at most five seconds.

        When a hand is at work there already, it is told to look again. Raises ``psycopg.Error`` when the database is away;
        then nothing was claimed.
        """
        hand = self._take_hand(channel, lane, task_id)
        if hand is None:
            return Tally()
        try:
            return self._work(hand, tuple(ids))
        finally:
            with self._lock:
                self._hands.pop((channel, lane))
            if hand.rung:  # by a bell that came after its last look
                doorbell.ring(channel, lane)

    def _take_hand(self, channel: str, lane: Lane, task_id: str) -> Hand | None:
        with self._lock:
            if (busy := self._hands.get((channel, lane))) is not None:
                busy.ring()
                self._window(channel).wake()
                return None
            hand = self._hands[channel, lane] = Hand(channel, lane, task_id)
            return hand

    def _work(self, hand: Hand, ids: tuple[str, ...]) -> Tally:
        end = time.monotonic() + timings().task_run_seconds
        window = self._window(hand.channel)
        while (left := end - time.monotonic()) > 0 and not self._stopping.is_set():
            room = window.take(limits().claim_rows, hand.lane, patience=min(left, PATIENCE_SECONDS))
            if not room:
                continue
            named, taken, ids = bool(ids), self._claim(hand, window, room, ids), ()
            if taken.stopped and taken.messages:
                self._call_for_help(hand)
            if self._claim_suspect(hand, window) or named or (taken.messages and not taken.all_of_it):
                continue
            if not taken.all_of_it:
                if hand.wait_for_room(window, taken.full, min(left, taken.slots_in or LOOK_AGAIN_SECONDS)):
                    self._claims.look_anew(hand)
            elif not hand.pause(left) and not hand.tally.in_flight and not self._claims.breakers.due:
                return hand.tally
        hand.rung = True  # its time is up, and more may be due
        return hand.tally

    def _call_for_help(self, hand: Hand) -> None:
        """Let another process know that more is due than this one takes."""
        now, place = time.monotonic(), (hand.channel, hand.lane)
        if now >= self._help_at.get(place, 0.0):
            self._help_at[place] = now + timings().help_seconds
            doorbell.ring(*place)

    def _window(self, channel: str) -> Window:
        with self._lock:
            if channel not in self._windows:
                known = providers().items()
                classes = [cls for (served, name), cls in known if served == channel and name != "sandbox"]
                most = min((cls.window for cls in classes), default=Provider.window)
                follows = all(cls.one_host for cls in classes)
                self._windows[channel] = Window(limits().places, most, follows=follows)
            return self._windows[channel]

    def _claim(self, hand: Hand, window: Window, room: int, ids: tuple[str, ...], *, solitary: bool = False) -> Taken:
        started = time.monotonic()
        try:
            assert self._accounts is not None
            taken = self._claims.claim(hand, window, self._accounts, room, ids, solitary=solitary)
        except BaseException:
            window.give(room)
            if solitary:
                self._suspects.give()
            raise
        self.claimed_at = time.monotonic()
        window.give(room - len(taken.messages))
        if solitary and not taken.messages:
            self._suspects.none(hand.channel, hand.lane)
        if taken.messages:
            hand.claimed(len(taken.messages))
            self._launch(hand, window, taken.messages, started)
        return taken

    def _claim_suspect(self, hand: Hand, window: Window) -> bool:
        """One message that was in flight when two workers vanished; never two such at once in one process."""
        if not self._suspects.take(hand.channel, hand.lane):
            return False
        if not window.take(1):
            self._suspects.give()
            return False
        return bool(self._claim(hand, window, 1, (), solitary=True).messages)

    def _launch(self, hand: Hand, window: Window, claimed: list[Claimed], started: float) -> None:
        crash_point("after_claim")
        assert self._accounts is not None
        try:
            begun, accounts = self._claims.begin(hand, window, claimed, self._accounts)
        except BaseException:
            # Their leases will end with no call begun, and the sweep makes them due again.
            for message in claimed:
                self._done(hand, window, message, Status.QUEUED)
            raise
        crash_point("after_begin")
        self._leave_out(hand, window, [message for message in claimed if message.id not in begun.go], begun)
        going = [message for message in claimed if message.id in begun.go]
        asyncio.run_coroutine_threadsafe(self._carry(hand, window, going, accounts, started), self.loop)

    def _leave_out(self, hand: Hand, window: Window, messages: Sequence[Claimed], begun: Begun) -> None:
        for message in messages:
            self._claims.left(window, message)
            if message.id in begun.expired:
                self._settle_unsent(hand, window, message, _EXPIRED, Status.EXPIRED)
            elif message.id in begun.suppressed:
                self._settle_unsent(hand, window, message, _SUPPRESSED, Status.SUPPRESSED)
            else:
                self._done(hand, window, message, Status.QUEUED)

    async def _carry(
        self,
        hand: Hand,
        window: Window,
        going: Sequence[Claimed],
        accounts: Mapping[int, LiveAccount],
        started: float,
    ) -> None:
        calls = []
        for message in going:
            call = self._one(hand, window, message, accounts[message.account_id], started)
            calls.append(self.loop.create_task(call))
            if len(calls) % BESIDE == 0:
                await asyncio.sleep(0)  # an urgent message may have come, and would stand behind hundreds
        for message, failure in zip(going, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if failure is not None:
                # A mistake of ours. The lease will end and the sweep will decide; the place must not be lost.
                log.error("attempt_not_decided", message_id=str(message.id), exc_info=failure)
                self._done(hand, window, message, Status.QUEUED)

    async def _one(self, hand: Hand, window: Window, message: Claimed, account: LiveAccount, started: float) -> None:
        seconds = timings().deadline(type(account.provider)) if account.provider else 1.0
        began, bad = max(message.start, time.monotonic()), True
        try:
            outcome = await send(message, account, self.loop.time() + started + seconds - time.monotonic(), started)
            bad = outcome.account_wide or (outcome.error_class in OVERLOADED and outcome.code not in OUR_OWN)
        finally:
            window.answered(message.account_id, time.monotonic() - began, bad=bad)
        if account.provider is not None and account.provider.one_host:
            bad = bad and not outcome.account_wide
            self._claims.breakers.answered(message.account_id, message.id, outcome.code, bad=bad)
        now = moment(message, started, time.monotonic())
        history = History(message.tries, message.blind_count, message.expires_at, message.number)
        decision = decide(outcome, history, account.policy, now)
        if outcome.rest_seconds is not None:
            self._claims.rest(message.account_id, outcome.rest_seconds)
        tell(message, outcome, decision)
        self._record(hand, window, message, outcome, decision, now)

    def _settle_unsent(self, hand: Hand, window: Window, message: Claimed, outcome: Outcome, status: Status) -> None:
        self._record(hand, window, message, outcome, Decision((status,)))

    def _record(
        self,
        hand: Hand,
        window: Window,
        message: Claimed,
        outcome: Outcome,
        decision: Decision,
        at: datetime | None = None,
    ) -> None:
        settlement = Settlement(
            id=message.id,
            number=message.number,
            token=message.token,
            account_id=message.account_id,
            opened_at=message.opened_at,
            outcome=outcome,
            decision=decision,
            at=at,
        )
        done = partial(self._done, hand, window, message, decision.path[-1])
        self.recorder.put(Result(settlement, done, urgent=hand.lane is Lane.URGENT))

    def _done(self, hand: Hand, window: Window, message: Claimed, status: Status) -> None:
        window.give(1)
        if message.solitary:
            self._suspects.give()
        hand.finish(status)


_engine: Engine | None = None
_engine_lock = threading.Lock()


def engine(worker: str = "worker") -> Engine:
    """The engine of this process, started when it is first asked for. Raises what its start raises; then there is none."""
    global _engine
    with _engine_lock:
        if _engine is None:
            made = Engine(worker)
            made.start()
            _engine = made
        return _engine
