"""What must run with Chaski's settings and in a process of its own: filling a backlog, measuring intake against COPY.

Started by ``benchmarks.subject``: `python -m benchmarks.inside fill SERVICE COUNT`. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any
from uuid import uuid4

import django

from benchmarks.rows import row

#: A plain table of the same columns, without an index, a constraint or a trigger: the most that PostgreSQL can take.
PLAIN = "CREATE TABLE IF NOT EXISTS copy_target AS SELECT * FROM message WITH NO DATA"
COPY_CHUNK = 1000


def fill(service_id: int, count: int, channel: str, lane: str) -> dict[str, Any]:
    """Accept ``count`` messages as the batches of the API do: checked one by one, committed by 500."""
    from deliveries.models import Batch, Service

    service = Service.objects.get(pk=service_id)
    rows = (row(number, channel, priority=lane) for number in range(count))
    batch = Batch.objects.create(pk=_batch_id(), service=service)
    started = time.monotonic()
    _accept(service, batch, rows)
    seconds = time.monotonic() - started
    time.sleep(0.5)  # the ringer is a thread of this process; what it has not rung the relay would
    return {"seconds": seconds, "per_second": count / seconds}


def intake(service_id: int, count: int, pairs: int) -> dict[str, Any]:
    """Rows per second of the library call and of COPY, in turn. Both begin with the rows as a caller has them."""
    from deliveries.models import Batch, Message, Service

    service = Service.objects.get(pk=service_id)
    _accept(service, Batch.objects.create(pk=_batch_id(), service=service), [row(0)])
    sample = _any_message()
    given = [row(number) for number in range(count)]
    found: dict[str, list[float]] = {"intake": [], "copy": []}
    for _ in range(pairs):
        batch = Batch.objects.create(pk=_batch_id(), service=service)
        found["intake"].append(_timed(lambda batch=batch: _accept(service, batch, given), count))
        if Message.objects.filter(batch=batch).count() != count:
            raise SystemExit("Intake did not keep every row.")
        found["copy"].append(_timed(lambda: copy(sample, count), count))
    return found


def copies(count: int) -> dict[str, Any]:
    """Rows per second of COPY alone."""
    return {"per_second": _timed(lambda: copy(_any_message(), count), count)}


def _any_message() -> Any:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM message LIMIT 1")
        return cursor.fetchone()


def _timed(work: Any, count: int) -> float:
    started = time.monotonic()
    work()
    return count / (time.monotonic() - started)


def copy(sample: Any, count: int) -> None:
    """COPY ``count`` rows like ``sample`` into the plain table, a thousand to a commit."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS copy_target; {PLAIN}")
    for start in range(0, count, COPY_CHUNK):
        with connection.cursor() as cursor, cursor.copy("COPY copy_target FROM STDIN") as out:
            for _ in range(min(COPY_CHUNK, count - start)):
                out.write_row([uuid4(), *sample[1:]])


def _accept(service: Any, batch: Any, rows: Any) -> None:
    from deliveries.intake.batch import BatchIntake

    count = 0
    with BatchIntake(service, batch) as taken:
        for count, row_given in enumerate(rows, start=1):
            taken.add(count, row_given)
        accepted = taken.finish().accepted
    if accepted != count:
        raise SystemExit("Some messages were not accepted.")


def _batch_id() -> Any:
    from uuid_utils.compat import uuid7

    return uuid7()


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inside", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("fill", "intake", "copy"):
        asked = verbs.add_parser(verb)
        asked.add_argument("service", type=int)
        asked.add_argument("count", type=int)
        asked.add_argument("--channel", default="sms")
        asked.add_argument("--lane", default="normal")
        asked.add_argument("--pairs", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Run what was asked for."""
    asked = parse(arguments)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    import config.celery  # noqa: F401 - our Celery application is the current one, as in every process

    done = {
        "fill": lambda: fill(asked.service, asked.count, asked.channel, asked.lane),
        "intake": lambda: intake(asked.service, asked.count, asked.pairs),
        "copy": lambda: copies(asked.count),
    }[asked.verb]()
    print(json.dumps(done))


if __name__ == "__main__":
    main(sys.argv[1:])
