"""The witnesses of the tests of the lineage, which know nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings

from deliveries.doorbell import redis_url
from deliveries.witnesses import KEY, FileWitness, ValkeyWitness


@pytest.fixture
def valkey() -> Iterator[ValkeyWitness]:
    client = redis.Redis.from_url(redis_url(settings.CHASKI_CACHE_URL))
    client.delete(KEY)
    yield ValkeyWitness(client)
    client.close()


@pytest.fixture
def file(tmp_path: Path) -> FileWitness:
    return FileWitness(tmp_path / "folder" / "witness")
