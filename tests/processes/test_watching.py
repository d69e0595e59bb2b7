"""What operators see of the tasks: Flower behind its password, failures kept with their traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import urllib3
from kombu import Connection

from config import processes
from config.ports import any_free
from tests.processes.system import System, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def flower(system: System) -> Iterator[str]:
    """Flower's address, with its login."""
    port = any_free()
    process = processes.flower(port)
    system.supervisor.start(process)
    pool = urllib3.PoolManager(retries=False, timeout=2.0)

    def answers() -> bool:
        try:
            return pool.request("GET", f"http://127.0.0.1:{port}/healthcheck").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    wait_for(answers, 30, "Flower's first answer")
    yield f"http://127.0.0.1:{port}"
    system.supervisor.end(process.name)


def seen(system: System, flower: str, path: str, *, logged_in: bool = True) -> Any:
    login = urllib3.make_headers(basic_auth=system.environment["FLOWER_BASIC_AUTH"]) if logged_in else {}
    return urllib3.PoolManager(retries=False).request("GET", flower + path, headers=login)


@pytest.mark.parametrize("path", ["/", "/tasks", "/workers", "/broker", "/api/tasks", "/api/workers"])
def test_flower_shows_nothing_without_its_password(system: System, flower: str, path: str) -> None:
    assert seen(system, flower, path, logged_in=False).status == 401


def test_flower_leads_from_a_message_to_the_task_that_carried_it(system: System, flower: str) -> None:
    shop = system.new_service(system.twilio())
    message = shop.send("sms", "+56912345678")
    shop.client.wait(message.id, until="sent", timeout=15)
    task_id = system.query("SELECT task_id FROM attempt WHERE message_id = %s", str(message.id))[0][0]
    known = wait_for(lambda: seen(system, flower, "/api/tasks").json().get(task_id), 15, "the task in Flower")
    assert known["name"] == "deliver.sms"
    assert str(message.id) in known["kwargs"], "and back from the task to the message"
    assert seen(system, flower, f"/task/{task_id}").status == 200


def test_a_task_that_fails_keeps_its_traceback_and_loses_nothing(system: System) -> None:
    """Ids that are none: nobody here publishes such."""
    bell = {"version": 1, "channel": "sms", "lane": "normal", "ids": ["no id"]}
    headers = {"lang": "py", "task": "deliver.sms", "id": "with-a-mistake", "argsrepr": "()", "kwargsrepr": ""}
    with Connection(system.environment["CHASKI_BROKER_URL"]) as broker:
        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        broker.SimpleQueue("normal").put([[], bell, embed], serializer="json", headers=headers)
    kept = "SELECT status, traceback FROM django_celery_results_taskresult WHERE task_id = 'with-a-mistake'"
    ((status, traceback),) = wait_for(lambda: system.query(kept), 15, "the kept failure")
    assert status == "FAILURE"
    assert "InvalidTextRepresentation" in traceback
    shop = system.new_service(system.twilio())
    message = shop.send("sms", "+56912345678")
    assert shop.client.wait(message.id, until="sent", timeout=15).status in ("sent", "delivered")


def test_doctor_finds_every_process_running(system: System) -> None:
    """But beat, unless a test has just done its work. What else it may find concerns what the tests before left behind."""
    processes = {"database", "broker", "worker", "workers", "relay", "relays", "beat", "queue", "clock"}
    found: dict[str, str] = {}

    def missed() -> set[str]:
        found.clear()
        document = system.manage.run("doctor", "--json", codes=(0, 1, 3)).document
        found.update({each["check"]: str(each) for each in document["findings"] if each["level"] != "ok"})
        return processes & set(found)

    with suppress(AssertionError):
        wait_for(lambda: missed() <= {"beat"}, 20)
    assert processes & set(found) <= {"beat"}, found
