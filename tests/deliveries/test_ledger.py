"""The ledger: each check sees the one thing that it is for, and none cries wolf over a sound state."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection

from deliveries import acts, ledger
from deliveries.ledger import CHECKS, Check, Files, outside
from deliveries.ledger.balance import bounds
from deliveries.ledger.outside import laid_open
from deliveries.models import Batch, Endpoint, Message, Service
from tests.deliveries import broken_rows, steps
from tests.deliveries.backlog import fill
from tests.deliveries.broken_rows import BREAKS, Break, Line, accepts
from tests.deliveries.broken_ways import WAYS
from tests.deliveries.test_plans import LARGE, generic_plan, nodes
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db
Written = Callable[[str, list[Line]], Path]


@pytest.fixture
def service(shop: Caller, other: Caller) -> Service:
    make_account("sms")
    make_account("sms", name="theirs", service=other.service)
    return shop.service


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(kind: str, lines: list[Line]) -> Path:
        path = tmp_path / kind
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return path

    return write


def tell(service: Service) -> None:
    """An endpoint that was set long ago."""
    call_command("endpoint", "set", service.name, "https://93.184.216.34/hooks", stdout=None)
    Endpoint.objects.update(updated_at=steps.now() - timedelta(hours=1))


def wrong(files: Files | None = None, since: timedelta | None = None) -> list[tuple[str, str]]:
    """(words of the check, the row) of everything that is found."""
    with laid_open(files or Files()) as kinds, connection.cursor() as cursor:
        found = ledger.examine(cursor, steps.now() - since if since else None, kinds)
    words = sorted((check.wrong for check in CHECKS), key=len, reverse=True)
    return [(next(w for w in words if v.detail.startswith(f"{w}: ")), v.message_id) for v in found.violations]


def execute(statements: tuple[str, ...], ids: list[UUID], service: Service) -> None:
    other = Service.objects.get(name="other")
    values = {
        "id": ids[-1],
        "first": ids[0],
        "service": service.pk,
        "other": other.pk,
        "account": other.accounts.get().pk,
    }
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement, values if "%(" in statement else None)


def evidence(broken: Break, ids: list[UUID], written: Written) -> Files:
    kinds = {"told": broken.told, "accepted": broken.accepted, "received": broken.received}
    return Files(**{kind: written(kind, lines(ids)) for kind, lines in kinds.items() if lines})


def test_there_is_a_broken_build_for_each_check() -> None:
    assert set(BREAKS) == {check.wrong for check in CHECKS}
    assert len(CHECKS) == len(BREAKS)
    assert {check.invariant for check in CHECKS} == set(range(1, 11))


def test_every_check_of_the_package_is_among_those_that_run() -> None:
    modules = [import_module(f"{ledger.__name__}.{each.name}") for each in iter_modules(ledger.__path__)]
    assert len(modules) > 5
    for module in modules:
        held = {check for value in vars(module).values() if isinstance(value, tuple) for check in value}
        assert {check for check in held if isinstance(check, Check)} <= set(CHECKS), f"{module.__name__} has more"


def test_a_check_needs_a_file_that_there_is() -> None:
    assert {check.needs for check in CHECKS} == {"", *outside.KINDS}


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        *(pytest.param(name, broken, id=name) for name, broken in BREAKS.items()),
        *(pytest.param(name, broken, id=f"{name}: {way}") for name, way, broken in WAYS),
    ],
)
def test_each_check_sees_what_it_is_for_and_no_other_does(
    name: str, broken: Break, service: Service, written: Written
) -> None:
    if broken.endpoint:
        tell(service)
    ids = list(broken.state(service))
    assert not wrong(), "the state must be sound before it is broken"
    execute(broken.statements, ids, service)
    if broken.act:
        broken.act(ids)
    files = evidence(broken, ids, written)
    assert {words for words, _ in wrong(files)} == {name, *broken.also}
    assert {words for words, _ in wrong(files, since=timedelta(hours=1))} == {name, *broken.also}, "in a window too"


@pytest.mark.parametrize("child", ["pending", "event", "acceptance", "idempotency", "untold", "told"])
def test_each_kind_of_child_is_compared_with_its_message(child: str, service: Service) -> None:
    tell(service)
    ids = [*broken_rows.told(service), *broken_rows.waiting(service), *broken_rows.sent(service)]
    execute((f"UPDATE {child} SET service_id = %(other)s",), ids, service)
    assert "has children of another service" in {words for words, _ in wrong()}


def test_a_message_in_the_batch_of_another_service_is_found(service: Service) -> None:
    batch = Batch.objects.create(service=Service.objects.get(name="other"))
    (message_id,) = broken_rows.waiting(service)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE message SET batch_id = %s", [batch.pk])
    assert wrong() == [("has children of another service", str(message_id))]


@pytest.mark.parametrize("child", ["event", "attempt", "untold", "told"])
def test_each_kind_of_child_without_a_message_is_found(child: str, service: Service) -> None:
    tell(service)
    ids = list(broken_rows.told(service))
    execute((f"UPDATE {child} SET message_id = uuidv7() WHERE message_id = %(id)s",), ids, service)
    if child == "untold":
        execute(("INSERT INTO untold VALUES (uuidv7(), 1, %(service)s)",), ids, service)
    assert "is the message of a child, and does not exist" in {words for words, _ in wrong()}


def test_what_is_older_than_the_window_is_left_alone(service: Service) -> None:
    broken_rows.waiting(service)
    execute(("DELETE FROM pending",), [UUID(int=0)], service)
    assert wrong(since=timedelta(hours=1))
    with steps.later(timedelta(hours=2)):
        assert not wrong(since=timedelta(hours=1))


def test_an_endpoint_that_was_changed_asks_for_nothing_that_came_before(service: Service) -> None:
    broken_rows.sent(service)
    call_command("endpoint", "set", service.name, "https://93.184.216.34/hooks", stdout=None)
    assert not wrong()


def test_an_account_that_allowed_more_repeats_when_they_were_made_is_believed(service: Service) -> None:
    broken_rows.waiting(service)
    execute(
        ("UPDATE pending SET blind_count = 2", "UPDATE account SET updated_at = chaski_now()"), [UUID(int=0)], service
    )
    assert not wrong()


def test_events_that_were_not_asked_for_are_not_missed(service: Service) -> None:
    tell(service)
    Endpoint.objects.update(events=["delivered"])
    broken_rows.sent(service)
    assert not wrong()


def test_an_operators_verdict_is_proof_and_his_redelivery_a_reason(service: Service) -> None:
    (doubtful,) = broken_rows.in_doubt(service)
    acts.resolve(steps.message(doubtful), "sent", actor="somebody", reason="seen in the vendor's log")
    (again,) = broken_rows.failed(service)
    acts.redeliver(steps.message(again), actor="somebody")
    steps.send(again)
    with connection.cursor() as cursor:
        found = ledger.examine(cursor)
    assert (found.balanced, found.redelivered, found.handed_over) == (True, 1, 2)


def test_books_that_agree_with_the_rows_are_no_violation(service: Service, written: Written) -> None:
    tell(service)
    first, second = broken_rows.told(service)
    (doubtful,) = broken_rows.in_doubt(service)
    (never_answered,) = broken_rows.waiting(service)
    told = [{"id": str(i), "service": s} for i, s in ((first, "shop"), (second, str(service.pk)), (doubtful, ""))]
    told += [{"id": str(never_answered), "told": False}, {"id": str(UUID(int=(1 << 128) - 1)), "told": False}]
    bodies = [callback.options["payload"] for callback in Message.objects.filter(origin="callback")]
    files = Files(
        told=written("told", told),
        accepted=written("accepted", accepts(first, second, doubtful)),
        received=written("received", [*bodies, *bodies]),
    )
    assert not wrong(files)


def test_an_accept_without_our_id_is_known_by_the_providers_or_by_a_doubt_about_its_recipient(
    service: Service, written: Written
) -> None:
    broken_rows.sent(service)
    broken_rows.in_doubt(service)
    known, lost, unknown = accepts(None, None, None)
    known["provider_message_id"] = steps.ACCEPTED.provider_message_id
    assert not wrong(Files(accepted=written("accepted", [known, lost])))
    found = wrong(Files(accepted=written("accepted", [known, lost, unknown])))
    assert found == [("was accepted for somebody, and no attempt explains that", "other-2")]


@pytest.mark.parametrize(
    ("kind", "line", "words"),
    [
        ("told", "no json", "line 2"),
        ("told", "[]", "a JSON object is wanted, not list"),
        ("told", '{"id": "x"}', "badly formed"),
        ("told", '{"message": 1}', "KeyError: 'id'"),
        ("told", '{"id": 7}', "it looks like {"),
        ("accepted", '{"time": "yesterday", "provider": "p", "recipient": "r"}', "isoformat"),
        ("received", '{"data": {"events": [{}]}}', "KeyError: 'message_id'"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_line_and_an_example(
    kind: str, line: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "lines"
    path.write_text(f"\n{line}\n")
    with (
        pytest.raises(ledger.UnusableFile, match=f"--{kind} .*lines, line 2") as refused,
        laid_open(Files(**{kind: path})),
    ):
        pass
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ledger.UnusableFile, match="cannot be read"), laid_open(Files(told=tmp_path / name)):
        pass


def test_a_last_line_that_was_cut_off_is_left_out(service: Service, tmp_path: Path) -> None:
    """Whoever wrote it was killed before it answered."""
    (message_id,) = broken_rows.waiting(service)
    path = tmp_path / "told"
    path.write_text(f'{{"id": "{message_id}", "service": "shop"}}\n{{"id": "0198')
    assert not wrong(Files(told=path))


@pytest.mark.parametrize("number", range(len(CHECKS)), ids=lambda number: f"{CHECKS[number].wrong[:40]}")
def test_a_look_at_the_last_hour_reads_no_large_table_as_a_whole(number: int, service: Service) -> None:
    """Planned as a prepared statement is, without sequential scans: each large table must be entered by a condition."""
    check = CHECKS[number]
    fill(service.pk, 5_000)
    with connection.cursor() as cursor:
        bounds(cursor, None)
        for kind, about in outside.KINDS.items():
            cursor.execute(f"CREATE TEMPORARY TABLE outside_{kind} ({about.columns})")
    plan = generic_plan(check.sql)
    whole = [node["Relation Name"] for node, _ in nodes(plan) if _enters_without_condition(node)]
    assert not whole, f"reads through {whole}"


def _enters_without_condition(node: dict[str, object]) -> bool:
    if not LARGE.match(str(node.get("Relation Name", ""))) or "Scan" not in str(node["Node Type"]):
        return False
    if str(node.get("Index Name", "")).endswith(("_message_id_idx", "pending_order")):
        return False  # partial indexes: open attempts, which are few, and what waits with an ordering key
    return "Index Cond" not in node and node["Node Type"] != "Bitmap Heap Scan"
