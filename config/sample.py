"""The sample messages of `bin/up`: a service, an account per channel, N messages, and what became of them.

It uses Chaski as anybody would: `manage.py` and the HTTP API, nothing inside.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import urllib3

from channels.simulator.faults import FAULTS, addresses
from config.environment import Secrets
from config.management import Management, ManagementError

SERVICE = "demo"
USUAL_PLACE = "8900-8925"
CHANNELS = ("email", "sms", "telegram", "webhook")
CHUNK = 500  # messages in one call
POLL_SECONDS = 0.3
STALL_SECONDS = 180.0  # with no change at all for so long, something is wrong
FAULTY_ONE_IN = 50
#: What the faulty recipients meet: failures that a retry mends, and one that nothing mends.
FAULTS_SHOWN = ("throttle", "server_error", "reject")

#: Done as far as sending goes: the rest is receipts, which may come or not.
SETTLED = frozenset({"sent", "delivered", "read", "undelivered", "failed", "expired", "canceled", "suppressed"})

Counts = Mapping[str, int]
Watch = Callable[[int, int, Counts], None]  # settled, all, by status


class SampleError(Exception):
    """The sample messages could not be sent or did not settle; says what happened and where to look."""


@dataclass(frozen=True, slots=True)
class Simulator:
    """Where the simulated providers listen on 127.0.0.1."""

    port: int
    smtp_port: int

    @property
    def place(self) -> str:
        """Its ports in one word: accounts made for other ports are of no use."""
        return f"{self.port}-{self.smtp_port}"

    def name(self, channel: str) -> str:
        """The demo account of the channel."""
        usual = self.place == USUAL_PLACE
        return f"{SERVICE}-{channel}" if usual else f"{SERVICE}-{channel}-{self.place}"

    def account(self, channel: str, secrets: Secrets) -> list[str]:
        """Provider, name and options of the demo account, as `manage.py account create` takes them."""
        name = self.name(channel)
        base = f"http://127.0.0.1:{self.port}"
        if channel == "email":
            given = (f"host=127.0.0.1 port={self.smtp_port} security=none from=hello@chaski.example", "")
            return _account("smtp", name, *given)
        if channel == "sms":
            options = f"base_url={base}/twilio account_sid=AC{'0' * 32} from_number=+15005550006"
            return _account("twilio", name, options, "auth_token=simulated")
        if channel == "telegram":
            # Telegram's rate is not the simulator's, and the first look at Chaski should not wait for it.
            options = f"base_url={base}/telegram rate=none recipient_rate=none"
            return _account("telegram", name, options, "token=1000000:simulated")
        return _account("webhook", name, f"base_url={base}/webhook", f"secret={secrets['WEBHOOK_SECRET']}")


def _account(provider: str, name: str, options: str, secret: str) -> list[str]:
    given = [argument for option in options.split() for argument in ("--option", option)]
    kept = [argument for each in secret.split() for argument in ("--secret", each)]
    return [provider, name, *given, *kept]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the samples. ``seconds`` run from the first call to the last message settled."""

    seconds: float
    messages: int
    per_channel: dict[str, Any]
    ledger: dict[str, Any]

    @property
    def balanced(self) -> bool:
        return bool(self.ledger["balanced"])


def recipient(channel: str, number: int) -> str:
    """An ordinary one; one in fifty asks the simulator for a fault."""
    if number % FAULTY_ONE_IN == FAULTY_ONE_IN // 2:
        fault = FAULTS[FAULTS_SHOWN[number // FAULTY_ONE_IN % len(FAULTS_SHOWN)]]
        return addresses(fault)["sms, whatsapp" if channel == "sms" else channel]
    return {
        "email": f"customer-{number}@shop.example",
        "sms": f"+5691234{number % 10_000:04}",
        "telegram": str(1_000_000 + number),
        "webhook": f"https://shop.example/hooks/{number}",
    }[channel]


def messages(count: int) -> list[dict[str, str]]:
    """``count`` messages in equal parts over the channels, as the API takes them."""
    made = []
    for number in range(count):
        channel = CHANNELS[number % len(CHANNELS)]
        text = f"Your order {number} is on its way."
        row = {"channel": channel, "to": recipient(channel, number // len(CHANNELS)), "text": text}
        if channel == "email":
            row["subject"] = f"Order {number}"
        made.append({**row, "reference": f"order-{number}"})
    return made


class Api:
    """The three calls that the samples need."""

    def __init__(self, base: str, key: str) -> None:
        self._base = base
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=60), retries=False)
        self._headers = {"Authorization": f"Bearer {key}"}

    def knows_the_key(self) -> bool:
        """False for a key of another database."""
        return self._call("GET", "/me").status == 200

    def send(self, rows: list[dict[str, str]]) -> dict[str, Any]:
        """Accept a batch; gives ``id``, ``accepted``, ``rejected``."""
        return self._document(self._call("POST", "/batches", {"messages": rows}), 202)

    def counts(self, batch: str) -> Counts:
        """How many of the batch's messages have which status."""
        counts: Counts = self._document(self._call("GET", f"/batches/{batch}"), 200)["counts"]
        return counts

    def _call(self, method: str, path: str, body: Any = None) -> urllib3.BaseHTTPResponse:
        address = f"{self._base}/api/v1{path}"
        try:
            return self._pool.request(method, address, json=body, headers=self._headers)
        except urllib3.exceptions.HTTPError as error:
            raise SampleError(f"{method} {address} got no answer ({error}); see .chaski/log/web.log.") from error

    def _document(self, answer: urllib3.BaseHTTPResponse, expected: int) -> dict[str, Any]:
        if answer.status != expected:
            said = answer.data.decode(errors="replace")[:500]
            raise SampleError(f"{answer.url} answered {answer.status} instead of {expected}: {said}")
        document: dict[str, Any] = answer.json()
        return document


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample run against the web process at ``base``."""

    manage: Management
    base: str
    simulator: Simulator
    secrets: Secrets

    def prepare(self) -> Api:
        """Make the service and its accounts, or take those of the last time."""
        kept = self.secrets.get("DEMO_API_KEY")
        known = kept is not None and Api(self.base, kept).knows_the_key()
        if not known:
            self.secrets.keep(DEMO_API_KEY=self._new_key())
        api = Api(self.base, self.secrets["DEMO_API_KEY"])
        if not known or self.secrets.get("DEMO_ACCOUNTS_AT") != self.simulator.place:
            with ThreadPoolExecutor(max_workers=2) as few:
                list(few.map(self._make_account, CHANNELS))
            self.secrets.keep(DEMO_ACCOUNTS_AT=self.simulator.place)
        return api

    def run(self, api: Api, count: int, watch: Watch) -> Outcome:
        """Send ``count`` messages, call ``watch`` until all have settled, ask what became of them."""
        begun = time.monotonic()
        batches = _accept(api, messages(count))
        _follow(api, batches, watch)
        seconds = time.monotonic() - begun
        report = self.manage.run("up_report", *batches, "--json").document if batches else {"per_channel": {}}
        ledger = self.manage.run("ledger", "--json", codes=(0, 1)).document
        return Outcome(round(seconds, 2), count, report["per_channel"], ledger)

    def _new_key(self) -> str:
        try:
            made = self.manage.run("service", "create", SERVICE, "--json")
        except ManagementError as error:
            if "exist" not in error.said:
                raise
            made = self.manage.run("service", "key", SERVICE, "--json")  # its first key was shown elsewhere
        return str(made.document["api_key"])

    def _make_account(self, channel: str) -> None:
        account = self.simulator.account(channel, self.secrets)
        try:
            self.manage.run("account", "create", channel, *account, "--json")
        except ManagementError as error:
            if "exist" not in error.said:
                raise
        self.manage.run("route", "set", SERVICE, channel, self.simulator.name(channel))


def _accept(api: Api, rows: list[dict[str, str]]) -> list[str]:
    batches = []
    for start in range(0, len(rows), CHUNK):
        answer = api.send(rows[start : start + CHUNK])
        if answer["rejected"]:
            raise SampleError(f"The API refused sample messages: {answer['rejected'][:3]}")
        batches.append(str(answer["id"]))
    return batches


def _follow(api: Api, batches: list[str], watch: Watch) -> None:
    changed = time.monotonic()
    before: Counts = {}
    while True:
        counts = Counter[str]()
        for batch in batches:
            counts.update(api.counts(batch))
        settled = sum(number for status, number in counts.items() if status in SETTLED)
        watch(settled, counts.total(), counts)
        if settled == counts.total():
            return
        if counts != before:
            changed, before = time.monotonic(), counts
        if time.monotonic() - changed > STALL_SECONDS:
            raise SampleError(
                f"Nothing has moved for {STALL_SECONDS:.0f} s, at {dict(counts)}. See `manage.py doctor`, "
                "`manage.py trace MESSAGE_ID` and .chaski/log/."
            )
        time.sleep(POLL_SECONDS)
