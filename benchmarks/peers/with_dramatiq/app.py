"""The broker and its one actor."""

from __future__ import annotations

import os
import threading

import dramatiq
import requests
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.form import LOGIN, URL, form

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))
_local = threading.local()


def session() -> requests.Session:
    """The session of this thread, whose connection stays open."""
    found: requests.Session | None = getattr(_local, "session", None)
    if found is None:
        found = _local.session = requests.Session()
        found.headers.update(LOGIN)
        found.trust_env = False
    return found


@dramatiq.actor
def send(number: int) -> None:
    """Send one SMS."""
    session().post(URL, data=form(number), timeout=20).raise_for_status()
