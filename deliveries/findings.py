"""Findings of the diagnosis: what one is, and those about accounts and their vendors. Called by ``deliveries.diagnosis``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import connection

from channels.registry import provider_class
from deliveries.delivery.accounts import owner, unusable
from deliveries.models import Account, Breaker
from deliveries.secrets import unseal


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    DEGRADED = "degraded"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw, and what to do about it (empty when nothing is)."""

    check: str
    level: Level
    found: str
    fix: str = ""


def ask(sql: str, parameters: dict[str, Any] | None = None) -> list[Any]:
    """The rows of one look. Raises Django's database errors."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows


def accounts() -> Iterator[Finding]:
    """Those that are stopped, given up for a while, or that cannot be used as they are set up."""
    found_accounts = list(Account.objects.all())
    broken = dict(Breaker.objects.values_list("account_id", "opened_at"))
    for account in found_accounts:
        if account.stopped_at is not None:
            fix = f"Mend its credentials, then `manage.py resume --account {account.name}`."
            yield Finding("account", Level.DEGRADED, f"{account} stopped: {account.stopped_reason}", fix)
        if account.pk in broken:
            found = (
                f"{account}: its provider has failed since {broken[account.pk]:%Y-%m-%d %H:%M} UTC; its messages wait"
            )
            fix = "Look at its breaker in the admin for the reasons; it closes by itself when a message gets through."
            yield Finding("account", Level.DEGRADED, found, fix)
        problem = _problem_of(account)
        if problem:
            yield Finding("account", Level.DEGRADED, f"{account}: {problem}", "Set it up again with `account create`.")
    yield Finding("accounts", Level.OK, f"{len(found_accounts)} set up")


def _problem_of(account: Account) -> str:
    try:
        cls = provider_class(account.channel, account.provider)
        cls.check({**account.options, **unseal(owner(account.public_id), bytes(account.secrets))})
    except Exception as error:  # noqa: BLE001 - one row must not hide what is wrong elsewhere
        return unusable(error)
    return ""


def codes() -> Iterator[Finding]:
    """What vendors say and no table of ours knows, of the last week."""
    rows = ask(
        "SELECT provider, code, times FROM unmapped_code WHERE last_at > chaski_now() - interval '7 days'"
        " ORDER BY times DESC LIMIT 5"
    )
    if rows:
        words = ", ".join(f"{provider} {code} ({times:,} times)" for provider, code, times in rows)
        fix = "The admin's page Unmapped codes has the provider's words; add them to the table in the provider's file."
        yield Finding("codes", Level.OK, f"classed by their HTTP status alone: {words}. {fix}")
    else:
        yield Finding("codes", Level.OK, "every code of a provider is in its table")
