"""The parts of the documents that are made from the code, between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``.

A test holds them fresh; `.venv/bin/python -m tests.docs.blocks` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from channels.attachments import Carriage, Takes
from channels.base import Provider
from channels.media import MEDIA
from channels.registry import providers
from chaski.vocabulary import ErrorClass, Status
from deliveries.conf import Limits, Timings
from deliveries.delivery.account_window import LEAST, START
from deliveries.ledger import CHECKS
from deliveries.lifecycle import MOVES
from deliveries.retry import Decision, History, Outcome, Policy, decide

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"<!-- begin: (?P<name>[a-z -]+) -->\n(?P<body>.*?)<!-- end: (?P=name) -->", re.DOTALL)

#: Made by intake and the sweep, never by a provider's answer.
_NOT_FROM_A_PROVIDER = {ErrorClass.EXPIRED, ErrorClass.POISON}
_NOW = datetime(2030, 1, 1, tzinfo=UTC)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def life_cycle() -> str:
    """The allowed moves."""
    order = list(Status)
    rows = (
        (f"`{before}`", ", ".join(f"`{after}`" for after in sorted(afters, key=order.index)) or "nothing")
        for before, afters in MOVES.items()
    )
    return table(("from", "to"), rows)


def numbers() -> str:
    """The durations and bounds that belong together."""
    times, bounds = Timings(), Limits()
    rows = (
        ("the relay looks for due rows", f"every {times.relay_tick_seconds:g} s"),
        ("the sweep ends leases and expires messages", f"every {times.sweep_seconds:g} s"),
        ("one task works", f"at most {times.task_run_seconds:g} s"),
        (
            "results are recorded",
            f"half of what is under way together, {bounds.record_rows} rows at most, after {times.record_seconds * 1000:g} ms"
            " at the latest",
        ),
        ("an HTTP provider is waited for", f"{Provider.call_seconds:g} s"),
        ("the deadline of an attempt, from before its claim", f"{Provider.deadline_seconds:g} s"),
        ("the lease", f"{Provider.lease_seconds:g} s"),
        ("one claim takes", f"at most {bounds.claim_rows} messages"),
        ("a worker process has under way", f"at most {bounds.places:,} messages per channel"),
        ("an account's window", f"{LEAST} to {Provider.window} calls, {START} at first"),
        ("a direct bell carries", f"at most {bounds.ring_ids} ids"),
        ("bells that may wait in a lane's queue before no more are rung", f"{bounds.queue_bells}"),
        ("processes that vanish with a message as their suspect until it is poison", f"{bounds.crashes}"),
        ("a batch", f"{bounds.batch_rows:,} rows as JSON, {bounds.stream_rows:,} as lines"),
    )
    return table(("what", "how much"), rows)


def invariants() -> str:
    """What `manage.py ledger` looks for."""
    head = ("invariant", "is broken by a message, or a row, that", "needs")
    return table(head, ((str(each.invariant), each.wrong, each.needs and f"`--{each.needs}`") for each in CHECKS))


def outcomes() -> str:
    """What each error class of a first attempt leads to."""
    rows = [_outcome(word) for word in ErrorClass if word not in _NOT_FROM_A_PROVIDER]
    return table(("error class", "the message is then", "counts as a try", "counts as in doubt"), rows)


def _outcome(word: ErrorClass) -> tuple[str, str, str, str]:
    until = _NOW + timedelta(minutes=5) if word is ErrorClass.NOT_ALLOWED_NOW else None
    history = History(tries=0, blind_count=0, expires_at=_NOW + timedelta(hours=4))
    decision = decide(Outcome(word, until=until), history, Policy(), _NOW, lambda low, _high: low)
    counted = "-" if decision.finished or decision.stop_account else _yes(decision.tries > 0)
    return (f"`{word}`", _then(decision), counted, _yes(decision.in_doubt > 0))


def _then(decision: Decision) -> str:
    path = " -> ".join(f"`{status}`" for status in decision.path)
    if decision.stop_account:
        return f"{path}; its account stops and it waits for `{decision.waiting_for}`"
    return f"{path}, waits for `{decision.waiting_for}`" if decision.waiting_for else path


def _yes(answer: object) -> str:
    return "yes" if answer else "no"


def deadlines() -> str:
    """How long a message on each channel is worth sending."""
    rows = ((f"`{medium.key}`", f"{medium.expires_after / timedelta(hours=1):g} hours") for medium in MEDIA.values())
    return table(("channel", "expires after"), rows)


#: What plays the vendor in each file of tests/doubles.
DOUBLES = {
    "test_prism.py": "Prism, with the vendor's OpenAPI file",
    "test_apns.py": "WireMock",
    "test_maildev.py": "maildev",
    "test_moto.py": "moto",
    "test_smpp.py": "an SMSC of the npm package smpp",
    "test_web_push.py": "web-push-testing",
}


def channels() -> str:
    """What each provider can do, by the code, and which double it is tried against, by the tests that name it."""
    head = ("provider", "channels", "files", "receipts", "read", "replies", "asked", "once", "rate", "double")
    classes = sorted(set(providers().values()), key=lambda cls: cls.name)
    return table(head, (_provider(cls) for cls in classes))


def _provider(cls: type[Provider]) -> Iterable[str]:
    every = len(cls.channels) == len(MEDIA)
    rates = [str(rate) for rate in (cls.usual_rates.account, cls.usual_rates.recipient) if rate]
    return (
        f"`{cls.name}`",
        "all" if every else ", ".join(f"`{channel}`" for channel in cls.channels),
        _files(cls.takes),
        *(_mark(can) for can in (cls.receipts, cls.reads, cls.replies, cls.reconciles, cls.idempotent)),
        ", ".join(rates) or "-",
        ", ".join(_doubles(cls)) or "-",
    )


def _files(takes: Takes | None) -> str:
    if takes is None:
        return "-"
    return f"{takes.count}, uploaded once" if takes.carriage is Carriage.KEPT else str(takes.count)


def _mark(can: bool) -> str:
    return "yes" if can else "-"


def _doubles(cls: type[Provider]) -> list[str]:
    named = re.compile(rf"^from {re.escape(cls.__module__)} import .*\b{cls.__name__}\b", re.MULTILINE)
    folder = ROOT / "tests" / "doubles"
    return [double for file, double in DOUBLES.items() if named.search((folder / file).read_text())]


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "life cycle": ("docs/architecture.md", life_cycle),
    "numbers": ("docs/architecture.md", numbers),
    "invariants": ("docs/reference/invariants.md", invariants),
    "outcomes": ("docs/explanation/retries.md", outcomes),
    "channels": ("docs/channels.md", channels),
    "deadlines": ("docs/explanation/retries.md", deadlines),
}


def fresh(name: str, text: str) -> str:
    """``text`` with its block ``name`` made anew. Raises ``ValueError`` where it has none."""
    if name not in [match["name"] for match in BLOCK.finditer(text)]:
        raise ValueError(f"there is no block {name!r}")
    _, render = BLOCKS[name]
    made = f"<!-- begin: {name} -->\n{render()}<!-- end: {name} -->"
    return BLOCK.sub(lambda match: made if match["name"] == name else match[0], text)


def main() -> None:
    """Write every block."""
    for name, (file, _) in BLOCKS.items():
        path = ROOT / file
        path.write_text(fresh(name, path.read_text()))


if __name__ == "__main__":
    main()
