"""The parts of `bin/up` that need no running system."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from channels.simulator.faults import OK, fault_of
from config import local, sample, up
from config.embedded import EmbeddedPostgres, EmbeddedValkey
from config.environment import Secrets
from config.ports import NoFreePortError, any_free, next_free
from config.processes import Ports
from config.sample import CHANNELS, Simulator
from config.screen import Screen

PORTS = Ports(web=8001, flower=5556, simulator=8900, smtp=8925)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(local, "FOLDER", tmp_path)
    for variable in local.SERVERS:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_a_port_in_use_makes_way_for_the_next_free_one(listener: int) -> None:
    assert next_free(listener) > listener
    free = any_free()
    assert next_free(free, taken=[free]) > free


def test_no_free_port_names_those_tried(listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.ports.TRIED", 1)
    with pytest.raises(NoFreePortError, match=f"ports {listener} to {listener}"):
        next_free(listener)


def test_the_samples_are_spread_over_all_channels_with_a_few_that_fail() -> None:
    rows = sample.messages(1000)
    assert Counter(row["channel"] for row in rows) == dict.fromkeys(CHANNELS, 250)
    faults = Counter(fault_of(row["to"]).word for row in rows)
    assert faults["ok"] == 980
    assert set(faults) == {"ok", *sample.FAULTS_SHOWN}
    assert len({(row["channel"], row["to"]) for row in rows if fault_of(row["to"]) is OK}) == 980


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_has_an_account_at_the_simulator(channel: str, tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "secrets")
    usual = Simulator(8900, 8925).account(channel, secrets)
    moved = Simulator(8901, 8925).account(channel, secrets)
    assert usual[1] == f"demo-{channel}"
    assert moved[1] == f"demo-{channel}-8901-8925"  # the account of other ports would reach nobody
    assert any("127.0.0.1" in argument for argument in usual)


def test_variables_that_are_set_win_over_those_made_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://elsewhere/x")
    monkeypatch.setenv("CHASKI_PUBLIC_URL", "https://tunnel.example")
    valkey = EmbeddedValkey(folder / "valkey", log=folder / "log")
    values = local.variables([valkey], PORTS, Secrets(folder / "secrets"))
    assert values["DATABASE_URL"] == "postgres://elsewhere/x"
    assert values["CHASKI_PUBLIC_URL"] == "https://tunnel.example"
    assert (values["CHASKI_BROKER_URL"], values["CHASKI_CACHE_URL"]) == (valkey.url, valkey.cache_url)
    assert values["CHASKI_FLOWER_URL"] == "http://127.0.0.1:5556"


def test_dropping_the_broker_alone_keeps_what_opens_the_database(folder: Path) -> None:
    Secrets(folder / "secrets")
    local.drop([EmbeddedValkey(folder / "valkey", log=folder / "log")])
    assert (folder / "secrets").exists()
    local.drop([EmbeddedPostgres(folder / "postgres", log=folder / "log")])
    assert not (folder / "secrets").exists()


def test_a_web_process_that_never_gets_ready_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "READY_SECONDS", 0.0)
    with pytest.raises(local.NotReadyError, match="gave no answer"):
        local.wait_until_ready(f"http://127.0.0.1:{any_free()}/health/ready")


def test_the_screen_leaves_information_to_the_logs_and_stdout_to_the_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen()
    screen.show("web", "2026-11-24T05:36:00Z [info     ] receipts_stored [deliveries.api.inbound]")
    screen.show("web", "2026-11-24T05:36:00Z [warning  ] not_ready [deliveries.api.health]")
    shown = capsys.readouterr()
    assert "not_ready" in shown.err
    assert "receipts_stored" not in shown.err
    assert shown.out == ""


def test_an_address_is_shown_without_its_password() -> None:
    assert up._place("postgres://me:secret@db.example:5433/x") == "postgres://db.example:5433"


def test_fewer_than_no_messages_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        up.options_of(["--messages", "-1"])
    assert "not a whole number of 0 or more" in capsys.readouterr().err
