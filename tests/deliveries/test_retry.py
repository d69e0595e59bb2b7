"""Retry decisions: a table of what each answer leads to, and what holds for all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaski.vocabulary import ErrorClass, Status
from deliveries.retry import Decision, History, Outcome, Policy, backoff, decide

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FRESH = History(tries=0, blind_count=0, expires_at=NOW + timedelta(hours=4))
POLICY = Policy(base_seconds=2, factor=2, cap_seconds=60, jitter=0, max_tries=5)


def exact(low: float, high: float) -> float:
    """No jitter: the earliest moment that jitter allows."""
    return low


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("outcome", "path", "due_at", "waiting_for", "tries"),
    [
        (Outcome(), [Status.SENT], None, "", 0),
        (Outcome("not_sent", "dns"), [Status.QUEUED], after(2), "retry", 1),
        (Outcome("transient", "http_500"), [Status.QUEUED], after(2), "retry", 1),
        (Outcome("transient", "http_503", retry_after=30), [Status.QUEUED], after(30), "retry", 1),
        (Outcome("throttled", "http_429", retry_after=7), [Status.QUEUED], after(7), "rate_limit", 0),
        (Outcome("not_allowed_now", "63016", until=after(90)), [Status.QUEUED], after(90), "rate_limit", 0),
        (Outcome("not_allowed_now", "63016"), [Status.FAILED], None, "", 0),
        (Outcome("recipient_refused", "21211"), [Status.FAILED], None, "", 0),
        (Outcome("content_refused", "21617"), [Status.FAILED], None, "", 0),
        (Outcome("misconfigured", "20003"), [Status.QUEUED], NOW, "operator", 0),
        (Outcome("in_doubt", "timeout"), [Status.IN_DOUBT, Status.QUEUED], after(2), "retry", 1),
    ],
    ids=lambda value: getattr(value, "error_class", None) or None,
)
def test_what_an_answer_leads_to(
    outcome: Outcome, path: list[Status], due_at: datetime | None, waiting_for: str, tries: int
) -> None:
    decision = decide(outcome, FRESH, POLICY, NOW, exact)
    assert list(decision.path) == path
    assert (decision.due_at, decision.waiting_for, decision.tries) == (due_at, waiting_for, tries)


def test_a_server_error_counts_as_a_doubt_because_it_may_have_been_delivered() -> None:
    assert decide(Outcome("transient", "http_500"), FRESH, POLICY, NOW, exact).in_doubt == 1
    assert decide(Outcome("not_sent", "dns"), FRESH, POLICY, NOW, exact).in_doubt == 0


def test_wrong_credentials_stop_the_account() -> None:
    assert decide(Outcome("misconfigured", "20003"), FRESH, POLICY, NOW).stop_account


def test_spent_tries_fail_and_say_so() -> None:
    last = History(tries=4, blind_count=0, expires_at=FRESH.expires_at)
    decision = decide(Outcome("not_sent", "dns"), last, POLICY, NOW)
    assert decision.path == (Status.FAILED,)
    assert decision.reason == "all 5 tries are spent"


def test_a_wait_beyond_the_deadline_fails_now_and_says_so() -> None:
    soon = History(tries=0, blind_count=0, expires_at=after(5))
    decision = decide(Outcome("throttled", "http_429", retry_after=6), soon, POLICY, NOW, exact)
    assert decision.path == (Status.FAILED,)
    assert "deadline" in decision.reason


@pytest.mark.parametrize(
    ("policy", "history"),
    [
        (Policy(hold_in_doubt=True), FRESH),
        (Policy(hold_in_doubt=True, idempotent=True), FRESH),
        (POLICY, History(1, blind_count=1, expires_at=FRESH.expires_at)),
        (POLICY, History(tries=4, blind_count=0, expires_at=FRESH.expires_at)),
        (POLICY, History(tries=0, blind_count=0, expires_at=after(1))),
        (Policy(blind_retries=0), FRESH),
    ],
    ids=["policy", "policy beats idempotence", "blind retry spent", "tries spent", "deadline near", "none allowed"],
)
def test_a_doubt_that_may_not_be_repeated_is_held_in_sight(policy: Policy, history: History) -> None:
    decision = decide(Outcome("in_doubt", "timeout"), history, policy, NOW, exact)
    assert (decision.path, decision.held, decision.waiting_for) == ((Status.IN_DOUBT,), True, "operator")
    assert decision.in_doubt == 1


def test_a_provider_that_knows_our_key_is_asked_again_after_any_number_of_doubts() -> None:
    policy = Policy(idempotent=True, jitter=0)
    decision = decide(Outcome("in_doubt", "timeout"), History(3, 3, FRESH.expires_at), policy, NOW, exact)
    assert decision.path == (Status.IN_DOUBT, Status.QUEUED)


def test_a_throttle_without_a_wait_is_asked_ever_more_rarely_and_costs_no_try() -> None:
    waits = []
    for attempt in range(1, 12):
        history = History(tries=0, blind_count=0, expires_at=FRESH.expires_at, attempts=attempt)
        decision = decide(Outcome("throttled", "http_429"), history, Policy(jitter=0), NOW, exact)
        assert decision.due_at is not None
        assert decision.tries == 0
        waits.append((decision.due_at - NOW).total_seconds())
    assert waits == [2, 4, 8, 16, 32, 64, 120, 120, 120, 120, 120]


def test_a_vendor_that_keeps_asking_for_a_second_is_believed_less_and_less() -> None:
    waits = []
    for attempt in (1, 8, 9, 12, 40):
        history = History(tries=0, blind_count=0, expires_at=FRESH.expires_at, attempts=attempt)
        decision = decide(Outcome("throttled", "http_429", retry_after=1), history, Policy(jitter=0), NOW, exact)
        assert decision.due_at is not None
        waits.append((decision.due_at - NOW).total_seconds())
    assert waits == [1, 1, 2, 16, 120]


def test_waits_double_up_to_the_cap() -> None:
    assert [backoff(POLICY, tries, exact) for tries in range(1, 8)] == [2, 4, 8, 16, 32, 60, 60]


@given(tries=st.integers(1, 10_000), jitter=st.floats(0, 0.5))
def test_jitter_stays_within_its_share(tries: int, jitter: float) -> None:
    policy = Policy(base_seconds=2, cap_seconds=60, jitter=jitter)
    plain = backoff(Policy(base_seconds=2, cap_seconds=60, jitter=0), tries, exact)
    assert plain * (1 - jitter) - 1e-9 <= backoff(policy, tries) <= plain * (1 + jitter) + 1e-9


outcomes = st.builds(
    Outcome,
    error_class=st.sampled_from([str(word) for word in ErrorClass if word not in ("expired", "poison")]),
    code=st.just("code"),
    retry_after=st.none() | st.floats(0, 86_400),
    until=st.none() | st.integers(-100, 100_000).map(after),
)
histories = st.builds(
    History,
    tries=st.integers(0, 40),
    blind_count=st.integers(0, 3),
    expires_at=st.integers(-100, 100_000).map(after),
)
policies = st.builds(
    Policy,
    max_tries=st.integers(1, 30),
    blind_retries=st.integers(0, 2),
    idempotent=st.booleans(),
    hold_in_doubt=st.booleans(),
)


@given(outcome=outcomes, history=histories, policy=policies)
def test_whatever_happens_a_retry_lies_ahead_and_before_the_deadline(
    outcome: Outcome, history: History, policy: Policy
) -> None:
    decision = decide(outcome, history, policy, NOW)
    _never_waits_for_nothing(decision)
    if decision.due_at is not None and not decision.stop_account:
        assert NOW <= decision.due_at < history.expires_at
        if outcome.error_class in ("throttled", "transient", "not_allowed_now") and outcome.retry_after is not None:
            assert decision.due_at >= after(outcome.retry_after) - timedelta(milliseconds=1)


def _never_waits_for_nothing(decision: Decision) -> None:
    """Finished, or due at a time, or held for somebody: exactly one of them."""
    assert decision.finished == (decision.path[-1] not in (Status.QUEUED, Status.IN_DOUBT))
    assert decision.held == (decision.path[-1] is Status.IN_DOUBT)
    assert (decision.due_at is not None) == (decision.path[-1] is Status.QUEUED)


@given(outcome=outcomes, history=histories, policy=policies)
def test_what_has_been_counted_stays_counted(outcome: Outcome, history: History, policy: Policy) -> None:
    """Else a throttle between two doubts would allow one blind repeat more."""
    decision = decide(outcome, history, policy, NOW)
    if not decision.finished:
        assert decision.tries >= history.tries
        assert decision.blind >= history.blind_count


@given(history=histories, policy=policies)
def test_blind_repeats_never_exceed_what_the_account_allows(history: History, policy: Policy) -> None:
    decision = decide(Outcome("in_doubt", "timeout"), history, policy, NOW)
    if decision.due_at is not None and not policy.idempotent:
        assert history.blind_count < policy.blind_retries
        assert decision.blind == history.blind_count + 1
