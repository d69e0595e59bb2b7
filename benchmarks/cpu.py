"""CPU time and memory of processes, from /proc. Linux only, as the numbers of every target are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(roots: Iterable[int]) -> float:
    """CPU seconds of ``roots`` and everything they started, the dead included once they are waited for."""
    return sum(_own(pid) for pid in _trees(roots))


def resident_bytes(roots: Iterable[int]) -> int:
    """Resident memory of ``roots`` and everything they started; shared pages count once for each."""
    return sum(_resident(pid) for pid in _trees(roots))


def _trees(roots: Iterable[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields after the command's name; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _own(pid: int) -> float:
    """utime, stime, cutime, cstime: proc_pid_stat(5)."""
    fields = _stat(pid)
    return sum(int(ticks) for ticks in fields[11:15]) * _TICK


def _resident(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0
