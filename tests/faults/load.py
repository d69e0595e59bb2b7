"""Clients under fault: they send without pause, repeat what failed with the same ids, and note what they were told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Self

import chaski
from chaski.errors import ChaskiError
from chaski.identifiers import uuid7
from tests.processes.system import Tenant, wait_for


def without_repeats(shop: Tenant) -> Tenant:
    """The same service with a client that repeats nothing by itself: each refusal is seen."""
    client = chaski.Client(url=shop.system.url, api_key=shop.key, timeout=(2, 20), retries=0)
    return Tenant(shop.system, shop.name, shop.id, shop.key, client)


class Load:
    """One client on a thread while the block runs. ``told`` are the ids it got a 202 for, ``errors`` what else it got."""

    def __init__(
        self, shop: Tenant, *, rows: int = 20, pause: float = 0.1, channel: str = "sms", keys: int = 0
    ) -> None:
        self.shop = shop
        self.told: list[str] = []
        self.errors: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._rows, self._pause, self._channel, self._keys = rows, pause, channel, keys
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop after the chunk that is under way was accepted."""
        self._stopping.set()
        self._thread.join(90)
        assert not self._thread.is_alive(), f"the client never got its last chunk accepted: {self.errors}"

    def more(self, count: int, seconds: float = 30) -> None:
        """Wait until ``count`` more messages were accepted."""
        wanted = len(self.told) + count
        wait_for(lambda: len(self.told) >= wanted, seconds, f"the acceptance of {count} more ({dict(self.errors)})")

    def _run(self) -> None:
        while not self._stopping.is_set():
            ids = [str(uuid7()) for _ in range(self._rows)]
            while not self._accepted(ids):
                time.sleep(0.2)
            self._stopping.wait(self._pause)

    def _accepted(self, ids: list[str]) -> bool:
        begun = time.perf_counter()
        try:
            self.shop.send_ids(ids, self._channel, keys=self._keys)
        except ChaskiError as error:
            self.errors[f"{type(error).__name__} {getattr(error, 'status', '')}".strip()] += 1
            return False
        self.seconds.append(time.perf_counter() - begun)
        self.told.extend(ids)
        return True
