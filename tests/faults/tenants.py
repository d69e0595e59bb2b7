"""Services with their accounts in one process start, for tests that need several of them.

``python -m tests.faults.tenants JSON`` is that process; it runs in the environment of the system under fault.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import chaski
from tests.processes.system import ROOT, System, Tenant

#: Channel, provider, then ``option=value``: what `manage.py account create` is given.
Asked = tuple[str, ...]


def tenant(system: System, *accounts: Asked) -> Tenant:
    """A service with ``accounts`` of its own, each named like its channel; a second of a channel is ``sms2``."""
    made = _made(system.environment, f"s{uuid4().hex[:10]}", accounts)
    client = chaski.Client(url=system.url, api_key=made["api_key"], timeout=(2, 20))
    return Tenant(system, made["name"], made["id"], made["api_key"], client)


def receipts_url(shop: Tenant, account: str) -> str:
    """Where the vendor of ``account`` posts its receipts."""
    sql = "SELECT public_id FROM account WHERE service_id = %s AND name = %s"
    return f"{shop.system.url}/receipts/{shop.system.query(sql, shop.id, account)[0][0]}"


def callbacks(shop: Tenant) -> dict[str, int]:
    """How many of the service's callbacks have which status."""
    sql = "SELECT status, count(*) FROM message WHERE service_id = %s AND origin = 'callback' GROUP BY status"
    return dict(shop.system.query(sql, shop.id))


def _made(environment: Mapping[str, str], name: str, accounts: tuple[Asked, ...]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.faults.tenants", json.dumps({"name": name, "accounts": accounts})]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def main(asked: str) -> None:
    """Make what ``asked`` says and print it."""
    import django

    django.setup()
    from deliveries.models import Account, Service
    from deliveries.setting_up import add_key, create_account

    wanted = json.loads(asked)
    service = Service.objects.create(name=wanted["name"])
    names: list[str] = []
    for channel, provider, *options in wanted["accounts"]:
        number = sum(name.startswith(channel) for name in names) + 1
        names.append(channel if number == 1 else f"{channel}{number}")
        account = Account(service=service, channel=channel, provider=provider, name=names[-1])
        create_account(account, dict(option.split("=", 1) for option in options), actor="the tests")
    key = add_key(service, actor="the tests")
    print(json.dumps({"name": service.name, "id": service.pk, "api_key": key}))


if __name__ == "__main__":
    main(sys.argv[1])
