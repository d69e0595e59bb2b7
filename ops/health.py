"""Is the process of this container at work? Called by the health checks of the Dockerfile and of docker-compose.yml.

    python ops/health.py web|worker|relay|beat|flower|smpp

Exit 0 when it is; 1, with one line on stderr that says what was looked at, when it is not. A worker and a relay are judged
by the sign of life that they leave in the database every five seconds, never by a ping: a worker that lost the database
still answers pings. Beat is judged by what it is for, the periodic work being done.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg

SEEN_SECONDS = 20
PERIODIC_SECONDS = 300
ANSWER_SECONDS = 4.0

#: Names are NAME@HOST for workers and relay@HOST:PID for relays (deliveries.heartbeat).
SEEN = """
SELECT count(*) FROM heartbeat WHERE kind = %s AND split_part(split_part(name, '@', 2), ':', 1) = %s
    AND seen_at > chaski_now() - make_interval(secs => %s)
"""
DONE = "SELECT count(*) FROM periodic_slot WHERE job = 'minute' AND slot > chaski_now() - make_interval(secs => %s)"


class Unhealthy(Exception):
    """The process is not at work; the text says what was looked at."""


def web(address: str = "http://127.0.0.1:8000") -> None:
    """It accepts messages. Asked under the public host name, since Django refuses every other one."""
    host = urlsplit(os.environ["CHASKI_PUBLIC_URL"]).netloc
    _get(f"{address}/health/ready", {"Host": host})


def flower(address: str = "http://127.0.0.1:5555") -> None:
    """It answers."""
    _get(f"{address}/healthcheck", {})


def worker() -> None:
    """A worker of this host was seen."""
    _seen("worker")


def relay() -> None:
    """A relay of this host was seen."""
    _seen("relay")


def beat() -> None:
    """The periodic work was done lately: by this beat or another, through the broker and a worker."""
    if not _count(DONE, [PERIODIC_SECONDS]):
        raise Unhealthy(f"no periodic work was done in the last {PERIODIC_SECONDS} s")


def smpp(address: str = "http://127.0.0.1:8377") -> None:
    """It answers. A bind that an SMSC refuses no new container would mend."""
    _get(f"{address}/health", {})


CHECKS: dict[str, Callable[[], None]] = {
    "web": web,
    "worker": worker,
    "relay": relay,
    "beat": beat,
    "flower": flower,
    "smpp": smpp,
}


def _get(url: str, headers: dict[str, str]) -> None:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own address on this host
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        with error:
            raise Unhealthy(f"{url} answered {error.code}: {error.read(300).decode(errors='replace')}") from error
    except OSError as error:
        raise Unhealthy(f"{url} gave no answer: {error}") from error


def _seen(kind: str) -> None:
    host = socket.gethostname()
    if not _count(SEEN, [kind, host, SEEN_SECONDS]):
        raise Unhealthy(f"no {kind} of host {host} left a sign of life in the last {SEEN_SECONDS} s")


def _count(sql: str, parameters: list[object]) -> int:
    try:
        with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=3) as connection:
            row = connection.execute(sql, parameters).fetchone()
    except psycopg.Error as error:
        raise Unhealthy(f"the database cannot be asked: {type(error).__name__}") from error
    return int(row[0]) if row else 0


def main(arguments: list[str]) -> int:
    """Check what is named; the result is the exit code."""
    if len(arguments) != 1 or arguments[0] not in CHECKS:
        print(f"usage: health.py {'|'.join(CHECKS)}", file=sys.stderr)
        return 2
    try:
        CHECKS[arguments[0]]()
    except Unhealthy as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
