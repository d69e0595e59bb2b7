"""When to try again: a pure function from what an attempt gave to what happens next. Called by the recorder and the sweep.

The schedule lives on the row, not in the broker: exponential, jittered, capped, honouring the provider's own wait and
ending at the message's deadline or when its tries are spent (docs/adr/0003-retries-are-data.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from channels.base import Accepted, NotAllowedNow, RecipientRefused, Scope, SendError, Throttled, Transient
from chaski.vocabulary import ErrorClass, Status, WaitingFor
from deliveries.sql import storable

#: The longest wait after a throttle without a `Retry-After`.
FREE_SECONDS = 120.0
#: An account that is throttled without one rests for so long.
REST_SECONDS = 1.0
#: So many attempts take a vendor's `Retry-After` at its word alone.
PATIENT_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Policy:
    """How a message is retried. Seconds throughout; ``jitter`` is the share by which a wait may be shorter or longer.

    ``ask_after_seconds``: so long after a doubt the vendor is asked whether it has the message; None: it is not.
    """

    base_seconds: float = 2.0
    factor: float = 2.0
    cap_seconds: float = 3600.0
    jitter: float = 0.2
    max_tries: int = 100  # once an hour for three days: on every channel the deadline comes first
    blind_retries: int = 1
    idempotent: bool = False
    hold_in_doubt: bool = False
    ask_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt gave, as a value. ``error_class`` is empty where the provider accepted.

    ``written_at``: when the request was handed to the network, by the database's clock; None: never, or nobody knows.
    """

    error_class: str = ""
    code: str = ""
    detail: str = ""
    provider_message_id: str = ""
    retry_after: float | None = None
    until: datetime | None = None
    suppress: bool = False
    account_wide: bool = False
    written_at: datetime | None = None
    #: Its code is in no table of ours.
    unmapped: bool = False
    #: For so long nothing more should go through its account: the provider throttles it, or took the last for now.
    rest_seconds: float | None = None

    @property
    def accepted(self) -> bool:
        """Did the provider take the message over?"""
        return not self.error_class

    @classmethod
    def of_answer(cls, answer: Accepted) -> Outcome:
        """The outcome of an accepted attempt."""
        return cls(
            detail=storable(answer.detail[:500]),
            provider_message_id=storable(answer.provider_message_id[:500]),
            rest_seconds=answer.rest_seconds,
        )

    @classmethod
    def of_error(cls, error: SendError) -> Outcome:
        """The outcome of an attempt that raised."""
        wait = error.retry_after if isinstance(error, (Throttled, Transient)) else None
        account_wide = isinstance(error, Throttled) and error.scope is Scope.ACCOUNT
        return cls(
            error_class=error.error_class,
            code=storable(error.code),
            detail=storable(error.detail),
            retry_after=wait,
            until=error.until if isinstance(error, NotAllowedNow) else None,
            suppress=isinstance(error, RecipientRefused) and error.suppress,
            account_wide=account_wide,
            rest_seconds=(wait or REST_SECONDS) if account_wide else None,
            unmapped=error.unmapped,
        )


@dataclass(frozen=True, slots=True)
class History:
    """What counts so far for one message: tries against the policy, and repeats after an answer that never came.

    ``attempts`` includes the one that is being decided.
    """

    tries: int
    blind_count: int
    expires_at: datetime
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens next. ``path`` follows SENDING; a message that stays pending has ``due_at``, or is ``held``.

    One that is held may be asked for from ``ask_at`` on. ``tries`` and ``blind`` are the counts from now on, not what is added.
    """

    path: tuple[Status, ...]
    due_at: datetime | None = None
    waiting_for: str = ""
    held: bool = False
    ask_at: datetime | None = None
    tries: int = 0
    blind: int = 0
    in_doubt: int = 0
    stop_account: bool = False
    reason: str = field(default="", compare=False)

    @property
    def finished(self) -> bool:
        """Does the message leave the queue?"""
        return self.due_at is None and not self.held


def blind_bound(blind_retries: int, *, alone: int = 0) -> int:
    """How many repeats without knowing one message may have in all: as many as its account allows.

    Where that is any at all, one whose workers vanish has ``alone`` more, each as the one suspect of its process, to find
    out whether it is the message that ends them. The one place that says so; ``Pending.blind_count`` is what counts.
    """
    return blind_retries + alone if blind_retries else 0


def backoff(policy: Policy, tries: int, spread: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds to wait after the ``tries``-th try (from 1)."""
    plain = min(policy.cap_seconds, policy.base_seconds * policy.factor ** min(tries - 1, 63))
    return float(plain * spread(1 - policy.jitter, 1 + policy.jitter))


_FINAL = {ErrorClass.RECIPIENT_REFUSED, ErrorClass.CONTENT_REFUSED, ErrorClass.POISON}


def decide(
    outcome: Outcome,
    history: History,
    policy: Policy,
    now: datetime,
    spread: Callable[[float, float], float] = random.uniform,
) -> Decision:
    """What becomes of a message whose attempt gave ``outcome``. Pure but for ``spread``, the source of jitter."""
    if outcome.accepted:
        return Decision((Status.SENT,))
    word = ErrorClass(outcome.error_class)
    if word in _FINAL:
        return Decision((Status.FAILED,))
    if word is ErrorClass.MISCONFIGURED:
        # The account stops, the message keeps its tries and waits for somebody to mend the account.
        return Decision(
            (Status.QUEUED,),
            due_at=now,
            waiting_for=WaitingFor.OPERATOR,
            stop_account=True,
            tries=history.tries,
            blind=history.blind_count,
        )
    if word is ErrorClass.IN_DOUBT:
        return _in_doubt(history, policy, now, spread)
    if word is ErrorClass.NOT_ALLOWED_NOW and outcome.until is None:
        return Decision((Status.FAILED,), reason="the provider does not allow it and names no time when it will")
    return _again(word, outcome, history, policy, now, spread)


def _again(
    word: ErrorClass,
    outcome: Outcome,
    history: History,
    policy: Policy,
    now: datetime,
    spread: Callable[[float, float], float],
) -> Decision:
    free = word in {ErrorClass.THROTTLED, ErrorClass.NOT_ALLOWED_NOW}
    tries = history.tries + (0 if free else 1)
    doubt = 1 if word is ErrorClass.TRANSIENT else 0
    if tries >= policy.max_tries:
        return Decision((Status.FAILED,), tries=tries, in_doubt=doubt, reason=f"all {tries} tries are spent")
    # What is free costs no try, but a vendor that names no wait must not be asked every two seconds for hours.
    wait = min(backoff(policy, history.attempts, spread), FREE_SECONDS) if free else backoff(policy, tries, spread)
    if outcome.retry_after is not None:
        # Never earlier than the provider said; a little later, so that a crowd does not return at once.
        wait = outcome.retry_after * spread(1.0, 1 + policy.jitter / 2)
        if free and history.attempts > PATIENT_ATTEMPTS:
            # It keeps saying "in a second": believe it less and less, for each attempt is a row and a call.
            wait = max(wait, min(backoff(policy, history.attempts - PATIENT_ATTEMPTS, spread), FREE_SECONDS))
    due_at = max(outcome.until or now, now + timedelta(seconds=wait))
    if due_at >= history.expires_at:
        return Decision((Status.FAILED,), in_doubt=doubt, reason="its deadline comes before the next try")
    waiting_for = WaitingFor.RATE_LIMIT if free else WaitingFor.RETRY
    return Decision(
        (Status.QUEUED,),
        due_at=due_at,
        waiting_for=waiting_for,
        tries=tries,
        blind=history.blind_count,
        in_doubt=doubt,
    )


def _in_doubt(history: History, policy: Policy, now: datetime, spread: Callable[[float, float], float]) -> Decision:
    """Ask where that is the policy; repeat where the provider knows our key or the account allows one more blind repeat;
    else hold it in sight."""
    hold = Decision(
        (Status.IN_DOUBT,),
        held=True,
        waiting_for=WaitingFor.OPERATOR,
        tries=history.tries + 1,
        blind=history.blind_count,
        in_doubt=1,
    )
    if policy.ask_after_seconds is not None and history.tries + 1 < policy.max_tries:
        return replace(hold, ask_at=now + timedelta(seconds=policy.ask_after_seconds))
    spent = history.blind_count >= blind_bound(policy.blind_retries)
    if policy.hold_in_doubt or (spent and not policy.idempotent) or history.tries + 1 >= policy.max_tries:
        return hold
    due_at = now + timedelta(seconds=backoff(policy, history.tries + 1, spread))
    if due_at >= history.expires_at:
        return hold
    return Decision(
        (Status.IN_DOUBT, Status.QUEUED),
        due_at=due_at,
        waiting_for=WaitingFor.RETRY,
        tries=history.tries + 1,
        blind=history.blind_count + 1,
        in_doubt=1,
    )
