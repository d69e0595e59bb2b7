"""What a benchmark ran on: the machine, the versions, how durable a commit was. Part of every report."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import ROOT
from benchmarks.servers import Servers

PACKAGES = ("celery", "kombu", "redis", "Django", "psycopg", "aiohttp", "uvloop", "gunicorn")
ASKED = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers")


def describe() -> dict[str, str]:
    """Every fact by its name. Starts the servers for a moment, to ask them rather than their files."""
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        **_servers(),
        "commit": _commit(),
    }


def _servers() -> dict[str, str]:
    with TemporaryDirectory(prefix="chaski-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with Servers(Path(folder)) as servers:
            told = {name: str(servers.query(f"SHOW {name}")[0][0]) for name in ASKED}
            valkey = str(servers.client(0).info("server")["valkey_version"])
    return {"PostgreSQL": told.pop("server_version"), **told, "Valkey": valkey}


def _commit() -> str:
    """The commit, with a + where something is changed since; nothing outside of a clone."""
    git = ("git", "-C", str(ROOT))
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def line(facts: dict[str, str]) -> str:
    """All of it in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)
