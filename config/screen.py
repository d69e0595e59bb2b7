"""What `bin/up` shows: everything goes to stderr, so that stdout is free for ``--json``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from config.sample import Counts, Outcome, Watch

PLAIN_SECONDS = 2.0  # between two lines of progress where there is no terminal
COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
ONLY_INFORMS = re.compile(r"\[(debug|info) *\]|\"level\": ?\"(debug|info)\"")  # as our logs write it
FIGURES = ("sent", "retried", "failed", "in_doubt", "p50_ms", "p99_ms")


class Screen:
    """One console for everybody. May be used from several threads."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._colours: dict[str, str] = {}

    def say(self, text: str) -> None:
        """One line of our own."""
        self._console.print(Text.assemble(("Chaski: ", "bold"), text), soft_wrap=True)

    def show(self, name: str, line: str) -> None:
        """One line of the process ``name``; what only informs stays in its log."""
        text = Text.from_ansi(line)
        if ONLY_INFORMS.search(text.plain) or not text.plain.strip():
            return
        colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        self._console.print(Text.assemble((f"{name:>10} | ", colour), text), soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Watch]:
        """A bar that moves where there is a terminal, else a line now and then."""
        if not self._console.is_terminal:
            yield self._plain_progress()
            return
        columns = (TextColumn("final"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("{task.description}"), console=self._console) as bar:
            task = bar.add_task("", total=None)

            def watch(settled: int, total: int, counts: Counts) -> None:
                bar.update(task, completed=settled, total=total, description=in_words(counts))

            yield watch

    def _plain_progress(self) -> Watch:
        last = 0.0

        def watch(settled: int, total: int, counts: Counts) -> None:
            nonlocal last
            if settled == total or time.monotonic() - last > PLAIN_SECONDS:
                last = time.monotonic()
                self.say(f"{settled} / {total} final ({in_words(counts)})")

        return watch

    def summary(self, outcome: Outcome) -> None:
        """The table per channel and the ledger's verdict."""
        table = Table("channel", title=f"{outcome.messages} messages in {outcome.seconds:.1f} s")
        for figure in FIGURES:
            table.add_column(figure.replace("_", " "), justify="right")
        for channel, figures in outcome.per_channel.items():
            table.add_row(channel, *(_figure(figures.get(figure)) for figure in FIGURES))
        self._console.print(table)
        if outcome.balanced:
            self.say("the ledger balances: every accepted message is accounted for")
            return
        self.say("THE LEDGER DOES NOT BALANCE; `manage.py ledger` names the rows:")
        for violation in outcome.ledger.get("violations", [])[:10]:
            self.say(f"  {violation}")

    def places(self, urls: Mapping[str, str], logins: Mapping[str, str]) -> None:
        """Where everything is and how to get in, in lines to copy from."""
        widest = max(map(len, urls.values()))
        for name, url in urls.items():
            line = Text.assemble((f"{name:>10}  ", "bold"), f"{url:<{widest}}  {logins.get(name, '')}")
            self._console.print(line, soft_wrap=True)


def in_words(counts: Counts) -> str:
    """``sent 600, queued 400``: the largest first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{status} {number}" for status, number in ordered if number)


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if isinstance(value, float) else str(value)
