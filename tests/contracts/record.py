"""Records what publishers of the released code put on a broker, and its tasks: `.venv/bin/python -m tests.contracts.record`.

The released code itself runs, in a process of its own, against an empty Valkey; what then lies there is kept byte by byte.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import redis

from config.embedded import EmbeddedValkey
from deliveries import task_contract
from tests.contracts.released import COMMIT, RECORDED, tree

#: Runs in the folder of the released code. Its own publishers ring: for ids, for a backlog, and as beat does.
PUBLISH = """
import django
django.setup()
from celery import current_app
import config.celery
from chaski.vocabulary import Lane
from deliveries.doorbell import Bell, Publisher, publish_ids, ring_bare
publisher = Publisher()
ids = ["01980000-0000-7000-8000-00000000000%d" % n for n in range(3)]
for channel in ("sms", "email", "webhook"):
    publish_ids(publisher, channel, Lane.NORMAL, ids)
publish_ids(publisher, "sms", Lane.URGENT, ids[:1])
ring_bare(publisher, Bell("sms", Lane.BULK, backlog=1000, oldest=12.5))
ring_bare(publisher, Bell("email", Lane.NORMAL))
for entry in config.celery.app.conf.beat_schedule.values():
    current_app.send_task(entry["task"], **{**entry["options"], "expires": None})
"""
#: Reads the released code's tasks with the reader of the code here, whose path is the first argument.
DESCRIBE = """
import sys, importlib.util
spec = importlib.util.spec_from_file_location("task_contract", sys.argv[1])
contract = sys.modules["task_contract"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contract)
import django
django.setup()
import config.celery
config.celery.app.loader.import_default_modules()
print(contract.text(contract.of(config.celery.app)), end="")
"""


def main() -> None:
    """Write tests/contracts/recorded/COMMIT anew."""
    RECORDED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        released = tree(Path(temporary, "released"))
        with EmbeddedValkey(Path(temporary, "valkey"), log=Path(temporary, "valkey.log")) as valkey:
            variables = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "CHASKI_ENV": "test"}
            variables |= {"CHASKI_BROKER_URL": valkey.url, "CHASKI_CACHE_URL": valkey.cache_url}
            _run(released, variables, PUBLISH)
            tasks = _run(released, variables, DESCRIBE, str(Path(task_contract.__file__)))
            found = _on_the_wire(valkey.cache_url.partition("?")[0])
    (RECORDED / "wire.json").write_text(json.dumps(found, indent=1) + "\n")
    (RECORDED / task_contract.LOCK.name).write_text(tasks)
    print(f"Recorded {len(found)} tasks of {COMMIT} in {RECORDED}.", file=sys.stderr)


def _run(folder: Path, variables: dict[str, str], program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=variables,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def _on_the_wire(url: str) -> list[dict[str, str]]:
    client = redis.Redis.from_url(url)
    lists = sorted(key.decode() for key in client.scan_iter(_type="list"))
    found = [{"queue": name, "raw": raw.decode()} for name in lists for raw in reversed(client.lrange(name, 0, -1))]
    client.close()
    return found


if __name__ == "__main__":
    main()
