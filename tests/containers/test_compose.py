"""docker-compose.yml: the same processes as everywhere, nothing unsafe by default, and time to end in peace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from channels.registry import providers
from config import celery, processes, variables
from tests.containers.compose import FILE, INTERPOLATION, ROOT, compose, own_services, seconds, services

#: What the other programs read: Flower, and the images of PostgreSQL and Valkey.
FOREIGN = {
    "flower": {"FLOWER_BASIC_AUTH"},
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS"},
    "valkey": {"VALKEY_PASSWORD", "VALKEYCLI_AUTH"},
}
WORKERS = [name for name in services() if name.startswith("worker")]
KNOWN = {variable.name: variable for variable in variables.VARIABLES}


def queues(name: str) -> str:
    command = services()[name]["command"]
    return str(command[command.index("-Q") + 1])


@pytest.mark.parametrize(
    ("name", "process"),
    [
        ("web", processes.web("0.0.0.0:8000")),
        *((name, processes.worker(1, queues(name))) for name in WORKERS),
        ("relay", processes.relay()),
        ("beat", processes.beat("/tmp/beat-schedule")),
        ("flower", processes.flower(5555, "0.0.0.0")),
        ("smpp", processes.smpp("0.0.0.0:8377")),
    ],
)
def test_every_container_runs_the_command_that_bin_up_runs(name: str, process: processes.Process) -> None:
    assert services()[name]["command"] == list(process.command)


def test_every_process_of_ours_is_there_and_nothing_else() -> None:
    assert set(own_services()) == {"migrate", "web", *WORKERS, "relay", "beat", "flower", "smpp"}
    assert {name for name, service in services().items() if "profiles" in service} == {"smpp"}
    assert services()["migrate"]["command"] == ["python", "manage.py", "migrate", "--noinput"]
    assert services()["relay"]["deploy"]["replicas"] == 2


def test_every_queue_has_a_worker_and_urgent_messages_have_one_to_themselves() -> None:
    served = [queues(name).split(",") for name in WORKERS]
    assert sorted(queue for group in served for queue in group) == sorted(celery.QUEUES)
    assert ["urgent"] in served


@pytest.mark.parametrize("name", services())
def test_a_container_gets_only_variables_that_somebody_reads(name: str) -> None:
    given = set(services()[name].get("environment", {}))
    read = FOREIGN.get(name, set()) | (set(KNOWN) if name in own_services() else set())
    assert given <= read, given - read


@pytest.mark.parametrize("name", own_services())
def test_what_production_refuses_to_guess_must_be_given(name: str) -> None:
    environment = own_services()[name]["environment"]
    assert environment["CHASKI_ENV"] == "production"
    for variable in variables.VARIABLES:
        if variable.unsafe:
            asked = [match["kind"] for match in INTERPOLATION.finditer(environment[variable.name])]
            assert ":?" in asked, f"{variable.name} could be left out"


def test_the_settings_accept_what_the_file_makes_of_the_given_secrets() -> None:
    environment = own_services()["web"]["environment"]
    given = {
        "POSTGRES_PASSWORD": "a1",
        "VALKEY_PASSWORD": "b2",
        "CHASKI_SECRET_KEY": "k" * 50,
        "CHASKI_CREDENTIAL_KEYS": "f" * 44,
        "CHASKI_PUBLIC_URL": "https://chaski.example.com",
        "CHASKI_ALLOWED_HOSTS": "chaski.example.com,web",
    }

    def filled(text: str) -> str:
        return INTERPOLATION.sub(lambda m: given.get(m["name"], "" if m["kind"] == ":?" else m["text"]), text)

    found = variables.read({name: filled(str(value)) for name, value in environment.items()})
    assert found["DATABASE_URL"].value == "postgres://chaski:a1@postgres:5432/chaski"
    assert found["CHASKI_BROKER_URL"].value == "redis://:b2@valkey:6379/0"
    assert found["CHASKI_ALLOWED_HOSTS"].value == ["chaski.example.com", "web"]


def test_no_secret_is_written_down_or_has_a_default() -> None:
    secret = {name for name, variable in KNOWN.items() if variable.secret} - {"SENTRY_DSN"}
    secret |= {name for names in FOREIGN.values() for name in names if re.search("PASSWORD|AUTH", name)}
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            if variable in secret:
                assert ":?" in [match["kind"] for match in INTERPOLATION.finditer(value)], (name, variable)
    texts = INTERPOLATION.findall(FILE.read_text())
    assert all(text.strip() for _, kind, text in texts if kind == ":?"), "a missing variable needs a sentence"


@pytest.mark.parametrize("name", services())
def test_an_image_is_named_by_version(name: str) -> None:
    tag = services()[name]["image"].partition(":")[2]
    assert tag
    assert not tag.startswith("latest")


@pytest.mark.parametrize("name", set(services()) - {"migrate"})
def test_every_service_is_watched_and_started_again(name: str) -> None:
    service = services()[name]
    assert service["restart"] == "unless-stopped"
    test = service["healthcheck"]["test"]
    assert test[0] in ("CMD", "CMD-SHELL")
    if name in own_services():
        kind = "worker" if name in WORKERS else name
        assert test == ["CMD", "python", "ops/health.py", kind]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_longer_to_end_than_its_longest_lease(name: str) -> None:
    longest = max(180.0, *(cls.lease_seconds for cls in providers().values()))
    assert seconds(services()[name]["stop_grace_period"]) > longest


def test_web_has_longer_to_end_than_gunicorn_gives_its_requests() -> None:
    command = services()["web"]["command"]
    graceful = float(command[command.index("--graceful-timeout") + 1])
    assert seconds(services()["web"]["stop_grace_period"]) > graceful


@pytest.mark.parametrize("name", own_services())
def test_our_processes_can_neither_write_nor_gain_privileges(name: str) -> None:
    service = own_services()[name]
    assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert service.get("volumes", []) == (["spill:/spill"] if name in (*WORKERS, "relay") else [])
    assert service["environment"]["CHASKI_SPILL"] == "/spill"
    assert service["environment"]["CHASKI_WITNESS"] == "/spill/witness"


def test_only_web_and_flower_are_published_and_both_on_loopback_unless_told_otherwise() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {"web": ["${CHASKI_BIND:-127.0.0.1:8000}:8000"], "flower": ["127.0.0.1:5555:5555"]}
    assert compose()["networks"]["data"] == {"internal": True}
    assert services()["postgres"]["networks"] == services()["valkey"]["networks"] == ["data"]


def test_nothing_starts_on_a_database_that_is_not_migrated() -> None:
    for name in ("web", "relay", "beat", "smpp", *WORKERS):
        asked = services()[name]["depends_on"]
        assert asked["migrate"]["condition"] == "service_completed_successfully", name
        assert asked["postgres"]["condition"] == "service_healthy", name
    assert "valkey" not in services()["web"]["depends_on"], "messages are accepted without the broker"


def test_the_data_outlives_its_containers_and_valkey_never_evicts() -> None:
    assert services()["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert services()["valkey"]["volumes"] == ["valkey:/data"]
    started = " ".join(services()["valkey"]["command"][-1].split())
    for option in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert option in started
    assert "--requirepass" not in started, "a command line can be read by others"
    assert set(compose()["volumes"]) == {"postgres", "valkey", "spill"}


def test_the_database_is_made_like_the_embedded_one() -> None:
    source = (ROOT / "config" / "embedded" / "postgres.py").read_text()
    for argument in services()["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split():
        assert f'"{argument}"' in source


def _compose_command() -> list[str] | None:
    """Compose itself, which needs no engine to check a file."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout.strip().lstrip("v").partition(".")[0] not in ("", "1"):
                return command
    return None


@pytest.mark.skipif(_compose_command() is None, reason="Compose is not installed here")
def test_compose_itself_takes_the_file(tmp_path: Path) -> None:
    command = _compose_command()
    assert command
    environment = tmp_path / "environment"
    required = {name for name, kind, _ in INTERPOLATION.findall(FILE.read_text()) if kind == ":?"}
    environment.write_text("".join(f"{name}=x1\n" for name in sorted(required)))
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    where = ["--project-directory", str(ROOT), "--env-file", str(environment), "--profile", "smpp"]
    arguments = [*command, *where, "config"]
    done = subprocess.run([*arguments, "--format", "json"], capture_output=True, text=True, env=bare, check=False)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    assert set(read["services"]) == set(services())

    environment.write_text("")
    refused = subprocess.run(arguments, capture_output=True, text=True, env=bare, check=False)
    assert not refused.stdout
    assert "is missing a value" in refused.stderr
