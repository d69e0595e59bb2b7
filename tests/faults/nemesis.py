"""The nemesis: random injuries under load, round after round, from a seed; after each the system must be whole again.

    python -m tests.faults.nemesis --minutes 10 --seed 7

A round lays one to three injuries on the system for 10 to 60 seconds while clients send, heals it, waits until nothing is
under way, and checks: the ledger, what clients were told, what the simulator accepted. Ends at the first finding (exit 1)
and keeps the folder with all logs. The same seed draws the same injuries; what they meet depends on the machine.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.injuries import INJURIES, draw
from tests.faults.load import Load
from tests.faults.system import FaultSystem
from tests.faults.watching import out_of_order
from tests.processes.system import SCALE, Tenant, wait_for

#: After a minute of failures the next try of a message may be as far away again.
QUIET_SECONDS = 150.0
#: Ordering keys of the second service; each of its requests has one message of each.
KEYS = 8
#: Everything goes out or is visibly in doubt. Poison is possible: the nemesis kills workers around the same message.
ALLOWED = {"sent", "delivered", "in_doubt", "failed"}


class Finding(Exception):
    """Something that must not be."""


@dataclass(slots=True)
class Nemesis:
    """One run: its system, two services under load, and what was seen so far."""

    system: FaultSystem
    chance: random.Random
    shops: list[Tenant] = field(default_factory=list)
    rounds: int = 0
    told: int = 0

    def prepare(self) -> None:
        """A service whose vendor sends receipts and that is told of its events, and one that asks for order."""
        self.shops = [self.system.new_service(self.system.twilio()), self.system.new_service(self.system.webhook())]
        texter = self.shops[0]
        url = "https://shop.example/hooks/events"
        self.system.manage.run("endpoint", "set", texter.name, url, "--base-url", f"{self.system.vendor_url}/webhook")

    def round(self, names: list[str], seconds: float) -> str:
        """Injure, heal, wait, check; a line about it. Raises ``Finding``."""
        texter, orderly = self.shops
        loads = [Load(texter, rows=10, pause=0.4), Load(orderly, rows=KEYS, pause=0.4, channel="webhook", keys=KEYS)]
        with ExitStack() as clients:
            for load in loads:
                clients.enter_context(load)
            with ExitStack() as injured:
                for name in names:
                    injured.enter_context(INJURIES[name](self.system, self.chance))
                time.sleep(seconds)
            self.system.heal()
            healed = time.monotonic()
        self.quiet()
        recovered = time.monotonic() - healed
        told = [message_id for load in loads for message_id in load.told]
        self.rounds, self.told = self.rounds + 1, self.told + len(told)
        errors = sum((load.errors for load in loads), Counter[str]())
        doubled, statuses = self.check(told)
        self.in_order(loads[1].told)
        seen = f"{len(told)} told, {statuses}, {doubled} sent again after a doubt, refused meanwhile {dict(errors)}"
        return f"{seen}; whole again after {recovered:.0f} s"

    def quiet(self) -> None:
        """Wait until nothing is due or under way, callbacks included."""
        busy = (
            "SELECT (SELECT count(*) FROM pending WHERE NOT blocked) + (SELECT count(*) FROM untold)"
            " + (SELECT count(*) FROM receipt WHERE applied_at IS NULL AND received_at > now() - interval '1 minute')"
        )
        try:
            wait_for(lambda: self.system.query(busy)[0][0] == 0, QUIET_SECONDS, "quiet")
        except AssertionError as error:
            stuck = self.system.query("SELECT channel, waiting_for, count(*), min(due_at) FROM pending GROUP BY 1, 2")
            raise Finding(f"{error}: still waiting {stuck}") from error

    def check(self, told: list[str]) -> tuple[int, Mapping[str, int]]:
        """How many providers accepted twice, and the statuses of ``told``. Raises ``Finding``."""
        found = self.system.query(
            "SELECT id::text, status, in_doubt_count, error_class FROM message WHERE id = ANY(%s::uuid[])", told
        )
        missing = set(told) - {row[0] for row in found}
        if missing:
            raise Finding(f"{len(missing)} messages were told and do not exist: {sorted(missing)[:5]}")
        wrong = [row for row in found if row[1] not in ALLOWED or (row[1] == "failed" and row[3] != "poison")]
        if wrong:
            raise Finding(f"{len(wrong)} messages ended as they must not: {wrong[:5]}")
        accepts = self.system.accepted(*told)
        unexplained = [row[:3] for row in found if accepts[row[0]] > 1 + row[2]]
        if unexplained:
            raise Finding(f"{len(unexplained)} were accepted more often than their doubts explain: {unexplained[:5]}")
        never = [row[0] for row in found if row[1] in ("sent", "delivered") and not accepts[row[0]]]
        if never:
            raise Finding(f"{len(never)} are said to be sent and never reached the provider: {never[:5]}")
        self._ledger()
        return sum(1 for n in accepts.values() if n > 1), dict(Counter(row[1] for row in found))

    def in_order(self, told: list[str]) -> None:
        """Each ordering key's messages reached the provider in the order of acceptance. Raises ``Finding``."""
        if found := out_of_order(self.system, told, KEYS):
            raise Finding(found)

    def _ledger(self) -> None:
        try:
            self.system.must_balance()
            self.system.books_agree(only_simulator=True)
        except AssertionError as error:
            raise Finding(str(error)) from error


def run(minutes: float, seed: int, home: Path) -> int:
    """Rounds for ``minutes``; 0 when all were well, else 1."""
    chance = random.Random(seed)
    ends = time.monotonic() + minutes * 60
    with FaultSystem(home) as system:
        nemesis = Nemesis(system, chance)
        nemesis.prepare()
        while time.monotonic() < ends:
            names, seconds = draw(chance), chance.uniform(10, 60)
            print(f"{time.strftime('%H:%M:%S')} seed {seed} round {nemesis.rounds + 1}: {', '.join(names)} ", end="")
            print(f"for {seconds:.0f} s", flush=True)
            try:
                print(f"         {nemesis.round(names, seconds)}", flush=True)
            except (Finding, AssertionError) as finding:
                print(f"FOUND with seed {seed} in round {nemesis.rounds + 1} ({', '.join(names)}): {finding}")
                return 1
    print(
        f"{nemesis.rounds} rounds, {nemesis.told} messages, nothing lost and nothing doubled unexplained (seed {seed})"
    )
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.nemesis", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to begin new rounds (10)")
    parser.add_argument("--seed", type=int, default=None, help="which injuries; drawn and printed if left out")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    # The ledger's code runs in this process too, with the system's own idea of a lease.
    os.environ |= {
        "CHASKI_ENV": "test",
        "CHASKI_TIME_SCALE": str(SCALE),
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    home = Path(tempfile.mkdtemp(prefix=f"chaski-nemesis-{seed}-"))
    code = run(given.minutes, seed, home)
    if code:
        print(f"Logs and data are in {home}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
