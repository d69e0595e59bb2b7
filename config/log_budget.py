"""How much a process may say: so many lines of one kind a minute, so many in all, and a count of what was left out.

Used by ``config.logs`` for the log and for Sentry. An outage makes every request, task and tick complain of the same
thing; the first complaints tell what is wrong, the others fill the disk.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

SECONDS = 60.0
#: What was left out is told so often.
REPORT_SECONDS = 20.0
#: A longer text, such as a traceback through several libraries, is cut to its first and its last line.
TEXT_LINES = 60
#: Kinds that are named when lines were left out; the others are one number.
NAMED = 12
#: One line per request that succeeded. It tells of no trouble, so it is bounded only while there is some.
JOURNAL = frozenset({"message_accepted", "messages_accepted"})
#: Fields that make two complaints with one event name two kinds.
_PARTS = ("job", "error", "error_class")
_VARIES = re.compile(r"\S*\d\S*")
LEFT_OUT = "log_lines_left_out"


@dataclass(slots=True)
class Budget:
    """Who may speak. Pure: ``now`` is given, in monotonic seconds. Over any minute at most ``lines + firsts`` pass.

    ``firsts`` are kept for kinds that have not been heard in the last minute, so that none starves another.
    """

    per_kind: int = 10
    lines: int = 60
    firsts: int = 25
    left_out: Counter[str] = field(default_factory=Counter)
    _spent: deque[tuple[float, int]] = field(default_factory=deque)
    _firsts: deque[float] = field(default_factory=deque)
    _heard: dict[str, deque[float]] = field(default_factory=dict)

    def grant(self, kind: str, wanted: int, now: float) -> int:
        """How many of ``wanted`` lines a record of ``kind`` may take: all of them, one, or none (it is counted)."""
        self._forget(now - SECONDS)
        times = self._heard.setdefault(kind, deque())
        room = self.lines - sum(lines for _, lines in self._spent)
        granted = wanted if wanted <= room and not times else 1
        if len(times) >= self.per_kind or (room < 1 and not self._first(times, now)):
            if len(self.left_out) < 10 * NAMED or kind in self.left_out:
                self.left_out[kind] += 1
            else:
                self.left_out["others"] += 1
            return 0
        times.append(now)
        if room >= 1:
            self._spent.append((now, granted))
        return granted

    def report(self) -> dict[str, int]:
        """What was left out since the last report, the most frequent first; forgets it."""
        counts, self.left_out = self.left_out, Counter()
        named = dict(counts.most_common(NAMED))
        rest = counts.total() - sum(named.values())
        return {**named, "others": named.get("others", 0) + rest} if rest else named

    def _first(self, times: deque[float], now: float) -> bool:
        if times or len(self._firsts) >= self.firsts:
            return False
        self._firsts.append(now)
        return True

    def _forget(self, before: float) -> None:
        while self._spent and self._spent[0][0] <= before:
            self._spent.popleft()
        while self._firsts and self._firsts[0] <= before:
            self._firsts.popleft()
        for kind, times in list(self._heard.items()):
            while times and times[0] <= before:
                times.popleft()
            if not times:
                del self._heard[kind]


def kind_of(record: logging.LogRecord) -> str:
    """What a record is about: its logger, its event, and which error it names. Numbers and ids in it do not count."""
    if isinstance(record.msg, dict):
        named = [str(record.msg[part]) for part in ("event", *_PARTS) if record.msg.get(part)]
    else:
        named = [_VARIES.sub("#", str(record.msg))[:120]]
        if record.exc_info and record.exc_info[0]:
            named.append(record.exc_info[0].__name__)
    return f"{record.name}: {' '.join(named)}"


class BoundedEvents:
    """Sentry's ``before_send`` within a budget: an event for each of thousands of equal failures helps nobody."""

    def __init__(self, scrub: Callable[[Any, Any], Any]) -> None:
        self._scrub = scrub
        self._budget = Budget(per_kind=5, lines=30, firsts=10)
        self._lock = threading.Lock()

    def __call__(self, event: Any, hint: Any) -> Any:
        """The event without what must not leave, or None."""
        with self._lock:
            granted = self._budget.grant(_kind_of_event(event, hint), 1, time.monotonic())
        return self._scrub(event, hint) if granted else None


def _kind_of_event(event: Any, hint: Any) -> str:
    if "log_record" in hint:
        return kind_of(hint["log_record"])
    values = event.get("exception", {}).get("values") or [{}]
    return f"{values[-1].get('type')} {event.get('transaction')}"


class BoundedHandler(logging.StreamHandler[Any]):
    """Writes to stderr what the budget allows; every twenty seconds one line for what it did not.

    Only the first of a kind is written whole: of the others, and of what has no room, the first and the last line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget()
        self._trouble_until = float("-inf")
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record``, in part, or not. Called under the handler's lock."""
        try:
            now = time.monotonic()
            if record.levelno >= logging.WARNING:
                self._trouble_until = now + SECONDS
            lines = self.format(record).splitlines() or [""]
            if not self._unbounded(record, now):
                granted = self.budget.grant(kind_of(record), min(len(lines), TEXT_LINES + 1), now)
                if not granted:
                    self._report_later()
                    return
                lines = lines if granted >= len(lines) else [_in_one(lines)]
            self.stream.write("\n".join(lines) + self.terminator)
            self.flush()
        except Exception:  # noqa: BLE001 - as every handler: what cannot be logged must break nothing
            self.handleError(record)

    def close(self) -> None:
        """Tell what is still to be told, then close; called at the end of the process."""
        self._report()
        super().close()

    def _unbounded(self, record: logging.LogRecord, now: float) -> bool:
        event = record.msg.get("event") if isinstance(record.msg, dict) else ""
        return event == LEFT_OUT or (event in JOURNAL and now > self._trouble_until)

    def _report_later(self) -> None:
        # A forked process inherits the timer but not its thread.
        if self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(REPORT_SECONDS, self._report)
            self._timer.daemon = True
            self._timer.start()

    def _report(self) -> None:
        with self.lock or threading.Lock():
            of = self.budget.report()
            self._timer = None
        if of:
            structlog.get_logger("config.log_budget").warning(LEFT_OUT, lines=sum(of.values()), of=of)


def _in_one(lines: list[str]) -> str:
    """The first line and the last that is not indented: of a traceback, what happened and which error it was."""
    last = next((line for line in reversed(lines) if line and not line[0].isspace()), "")
    return lines[0] if last == lines[0] else f"{lines[0].rstrip()} ... {last}"
