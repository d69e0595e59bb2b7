"""S4, S5, S6: how fast messages are taken in, in process, by batches over HTTP, one by one over HTTP."""

from __future__ import annotations

import json
from collections import Counter

from benchmarks import load
from benchmarks.bare_view import BareView
from benchmarks.figures import Finding, Measure, compared
from benchmarks.rows import row
from benchmarks.run import Run, Stage, say, stage
from benchmarks.subject import Service
from benchmarks.verify import Unsound

INTAKE_ROWS, BATCH_ROWS, REQUESTS = 50_000, 50_000, 5_000
#: Rows in one call; the API takes up to 10,000.
CALL_ROWS = 5_000
CONNECTIONS = 8
#: The proxy in front says so in production.
FORWARDED = {"X-Forwarded-Proto": "https"}
TAKEN = "SELECT count(*) FROM message WHERE service_id = %s"


def in_process(run: Run) -> list[Finding]:
    """The library call against COPY, in one process with one connection each."""
    count = run.count(INTAKE_ROWS)
    with stage(run) as on:
        service = _service(on)
        on.chaski.inside("intake", str(service.id), str(min(count, 1000)))  # warm
        found = on.chaski.inside("intake", str(service.id), str(count), "--pairs", str(run.turns()))
    finding = _share("S4", found["intake"], found["copy"])
    say(f"intake: {finding.measures[0].median:,.0f} rows/s, {finding.figure:.0f}% of COPY")
    return [finding]


def batches(run: Run) -> list[Finding]:
    """`POST /batches` from two callers at once, against COPY over one connection."""
    count = run.count(BATCH_ROWS)
    taken: list[float] = []
    copied: list[float] = []
    with stage(run) as on, on.chaski.running(web=True) as running:
        running.hold("normal")
        service = _service(on)
        _post_batches(on, service, min(count, 500))  # warm
        for turn in range(1, run.turns() + 1):
            taken.append(_post_batches(on, service, count))
            copied.append(on.chaski.inside("copy", str(service.id), str(count))["per_second"])
            say(f"batches {turn}/{run.turns()}: {taken[-1]:,.0f} rows/s, COPY {copied[-1]:,.0f}/s")
    return [_share("S5", taken, copied)]


def requests(run: Run) -> list[Finding]:
    """`POST /messages` against a view that parses JSON and inserts a row, on the same server with the same settings."""
    count = run.count(REQUESTS)
    ours: list[float] = []
    theirs: list[float] = []
    with stage(run) as on, on.chaski.running(web=True) as running, BareView(on) as bare:
        running.hold("normal")
        service = _service(on)
        for warm in (True, *(False for _ in range(run.turns()))):
            number = min(count, 500) if warm else count
            rates = _post_messages(on, service, number), bare.post(number, CONNECTIONS)
            if not warm:
                ours.append(rates[0])
                theirs.append(rates[1])
                say(f"requests {len(ours)}/{run.turns()}: {rates[0]:,.0f}/s, bare view {rates[1]:,.0f}/s")
    note = f"{CONNECTIONS} kept-open connections, one request at a time on each; gunicorn as in production for both"
    return [
        compared(
            "S6", Measure("Chaski", "/s", tuple(ours)), Measure("bare Django view", "/s", tuple(theirs)), notes=[note]
        )
    ]


def _service(on: Stage) -> Service:
    service = on.chaski.new_service()
    on.chaski.sms(service, on.sink.url("d50"))
    return service


def _share(key: str, taken: list[float], copied: list[float]) -> Finding:
    shares = tuple(a / b * 100 for a, b in zip(taken, copied, strict=True))
    measures = Measure("taken in", "rows/s", tuple(taken)), Measure("COPY by 1000", "rows/s", tuple(copied))
    figure = measures[0].median / measures[1].median * 100
    return Finding(key, figure, shares, measures)


def headers(service: Service) -> dict[str, str]:
    """Those of a caller's request."""
    return {"Authorization": f"Bearer {service.key}", "Content-Type": "application/json", **FORWARDED}


def _post_batches(on: Stage, service: Service, count: int) -> float:
    url = f"{on.chaski.url}/api/v1/batches"
    calls = [
        json.dumps({"messages": [row(number) for number in range(start, min(start + CALL_ROWS, count))]}).encode()
        for start in range(0, count, CALL_ROWS)
    ]
    return _post(on, service, url, [load.request(url, body, headers(service)) for body in calls], 2, count)


def _post_messages(on: Stage, service: Service, count: int) -> float:
    url = f"{on.chaski.url}/api/v1/messages"
    calls = [load.request(url, json.dumps(row(number)).encode(), headers(service)) for number in range(count)]
    return _post(on, service, url, calls, CONNECTIONS, count)


def _post(on: Stage, service: Service, url: str, calls: list[bytes], connections: int, rows: int) -> float:
    """Rows per second, every one of them found in the database afterwards."""
    before = on.servers.query(TAKEN, service.id)[0][0]
    on.servers.settle()
    answers = load.send(url, calls, connections=connections)
    taken = on.servers.query(TAKEN, service.id)[0][0] - before
    if answers.statuses != Counter({202: len(calls)}) or taken != rows:
        raise Unsound(f"{url}: {taken} of {rows} rows taken; answers {dict(answers.statuses)}")
    return rows / answers.seconds
