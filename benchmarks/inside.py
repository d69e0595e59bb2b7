"""What must run with Chaski's settings and in a process of its own: filling a backlog, measuring intake against COPY.

Started by ``benchmarks.subject``: `python -m benchmarks.inside fill SERVICE COUNT`. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import django

CHUNK = 500


def row(number: int, channel: str = "sms", **fields: Any) -> dict[str, Any]:
    """An ordinary message, as a caller gives it: what a shop tells its customer."""
    to = {"sms": f"+5691{number % 10_000_000:07}", "telegram": str(1_000_000 + number)}
    to["email"] = f"customer-{number}@shop.example"
    text = f"Hola, tu pedido {number} va en camino y llega hoy entre las 15:00 y las 18:00."
    given = {"channel": channel, "to": to[channel], "text": text, "reference": f"order-{number}", **fields}
    return {**given, "subject": f"Tu pedido {number}"} if channel == "email" else given


def fill(service_id: int, count: int, channel: str, lane: str) -> dict[str, Any]:
    """Accept ``count`` messages as the batches of the API do: checked one by one, committed by 500."""
    from deliveries import intake
    from deliveries.models import Batch, Service
    from deliveries.models.messages import Origin

    service = Service.objects.get(pk=service_id)
    batch = Batch.objects.create(pk=intake.draft(service, row(0, channel)).id, service=service)
    started = time.monotonic()
    for numbers in chunks(count):
        drafts = [intake.draft(service, row(number, channel, priority=lane)) for number in numbers]
        answers = intake.accept(drafts, origin=Origin.BATCH, batch_id=batch.pk)
        if not all(answer.fresh for answer in answers):
            raise SystemExit("Some messages of the backlog were not accepted.")
    seconds = time.monotonic() - started
    time.sleep(0.5)  # the ringer is a thread of this process; what it has not rung the relay would
    return {"seconds": seconds, "per_second": count / seconds}


def chunks(count: int) -> Iterator[range]:
    """The numbers from 0 to ``count``, by 500."""
    for start in range(0, count, CHUNK):
        yield range(start, min(start + CHUNK, count))


def main(arguments: list[str]) -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inside", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    filling = verbs.add_parser("fill", help="accept a backlog")
    filling.add_argument("service", type=int)
    filling.add_argument("count", type=int)
    filling.add_argument("--channel", default="sms")
    filling.add_argument("--lane", default="normal")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    import config.celery  # noqa: F401 - our Celery application is the current one, as in every process

    print(json.dumps(fill(asked.service, asked.count, asked.channel, asked.lane)))


if __name__ == "__main__":
    main(sys.argv[1:])
