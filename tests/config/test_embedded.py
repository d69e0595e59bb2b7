"""The embedded servers against what machines do to them: crashes, kills, zombies, spaces, two owners."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import environ
import psycopg
import pytest
import redis

from config.embedded import EmbeddedPostgres, EmbeddedValkey, ServerStartError, identity, server

ROOT = Path(__file__).parents[2]

OWNER = """
import signal, sys
from pathlib import Path
from config.embedded import EmbeddedPostgres, EmbeddedValkey
home = Path(sys.argv[1])
pg = EmbeddedPostgres(home / "postgres", log=home / "pg.log")
valkey = EmbeddedValkey(home / "valkey", log=home / "v.log")
with pg, valkey:
    print(pg.process.pid, valkey.process.pid, flush=True)
    signal.pause()
"""


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def notes(pg: EmbeddedPostgres) -> list[str]:
    with psycopg.connect(pg.socket_url) as connection:
        return [row[0] for row in connection.execute("SELECT text FROM notes ORDER BY text")]


def note(pg: EmbeddedPostgres, text: str) -> None:
    with psycopg.connect(pg.socket_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (text text)")
        connection.execute("INSERT INTO notes VALUES (%s)", [text])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a folder, with spaces")


@pytest.fixture(scope="module")
def shared_postgres(home: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(home / "postgres", log=home / "pg.log", port=free_port()) as pg:
        yield pg


@pytest.fixture
def postgres(shared_postgres: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    shared_postgres.start()
    yield shared_postgres
    shared_postgres.start()
    with psycopg.connect(shared_postgres.socket_url) as connection:
        connection.execute("DROP TABLE IF EXISTS notes")


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "with a space" / "valkey", log=tmp_path / "v.log") as server:
        yield server


def client(valkey: EmbeddedValkey) -> redis.Redis:
    return redis.Redis.from_url(valkey.cache_url)


def test_it_speaks_utf8_in_utc_and_commits_to_the_disk(postgres: EmbeddedPostgres) -> None:
    names = ("server_encoding", "TimeZone", "fsync", "synchronous_commit", "max_connections")
    with psycopg.connect(postgres.url) as connection:
        found = [connection.execute("SELECT current_setting(%s)", [name]).fetchone() for name in names]
    assert found == [("UTF8",), ("UTC",), ("on",), ("on",), ("200",)]


def test_the_socket_url_means_the_same_to_django_as_to_libpq(postgres: EmbeddedPostgres) -> None:
    database = environ.Env.db_url_config(postgres.socket_url)
    assert (database["NAME"], database["HOST"]) == ("chaski", "")
    assert database["OPTIONS"] == {"host": str(postgres.sockets)}
    with psycopg.connect(
        dbname=database["NAME"], user=database["USER"], port=database["PORT"], **database["OPTIONS"]
    ) as connection:
        assert connection.info.dbname == "chaski"


def test_with_a_port_it_serves_loopback_too(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url) as connection:
        assert connection.info.host == "127.0.0.1"


def test_settings_go_over_the_defaults(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    with (
        EmbeddedPostgres(postgres.data, log=postgres.log, settings={"max_connections": "17"}) as pg,
        psycopg.connect(pg.url) as connection,
    ):
        assert connection.execute("SHOW max_connections").fetchone() == ("17",)


def test_committed_rows_outlive_a_restart_and_a_kill(postgres: EmbeddedPostgres) -> None:
    note(postgres, "before the restart")
    postgres.restart()
    note(postgres, "before the kill")
    postgres.kill()
    assert not postgres.running
    postgres.start()
    assert notes(postgres) == ["before the kill", "before the restart"]


def test_it_waits_for_the_children_of_a_killed_server(postgres: EmbeddedPostgres) -> None:
    note(postgres, "kept")
    with psycopg.connect(postgres.socket_url) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)  # it cannot notice that its server is gone
        postgres.kill()
        threading.Timer(0.5, os.kill, (backend, signal.SIGCONT)).start()
        begun = time.monotonic()
        postgres.start()
        assert time.monotonic() - begun > 0.4
    assert notes(postgres) == ["kept"]


def test_a_process_id_that_became_a_strangers_does_not_stop_it(postgres: EmbeddedPostgres) -> None:
    postgres.kill()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        for file in (postgres.data / "postmaster.pid", *postgres.sockets.glob(".s.*.lock")):
            lines = file.read_text().splitlines()
            file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        postgres.start()
        assert stranger.poll() is None


def test_a_zombie_postmaster_does_not_stop_it(postgres: EmbeddedPostgres) -> None:
    postgres.process.send_signal(signal.SIGKILL)
    named = postgres.process.pid
    until(lambda: not alive(named))  # dead, and nobody has waited for it
    postgres._release()
    other = EmbeddedPostgres(postgres.data, log=postgres.log)
    with other:
        assert other.running
    postgres.process.wait()


def test_what_it_was_started_from_may_be_a_short_lived_thread(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    thread = threading.Thread(target=postgres.start)
    thread.start()
    thread.join()
    time.sleep(0.2)  # the signal would come at the thread's end
    assert postgres.running


def test_a_second_owner_is_told_that_the_folder_is_in_use(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.1)
    with pytest.raises(ServerStartError, match="still used by another process"):
        EmbeddedPostgres(postgres.data, log=postgres.log).start()
    assert postgres.running


def test_a_server_that_cannot_start_says_why(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    broken = EmbeddedPostgres(postgres.data, log=postgres.log, settings={"max_connections": "many"})
    with pytest.raises(ServerStartError, match='invalid value for parameter "max_connections"'):
        broken.start()
    assert not broken.running


def test_an_interrupted_first_start_is_made_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "pg.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path / "pg", log=tmp_path / "log") as pg:
        assert pg.running
    assert not unfinished.exists()


def test_killing_the_owner_takes_the_servers_along_and_the_next_finds_the_data(
    postgres: EmbeddedPostgres, home: Path
) -> None:
    postgres.stop()
    command = [sys.executable, "-c", OWNER, str(home)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        servers = [int(each) for each in owner.stdout.readline().split()]
        pg = EmbeddedPostgres(postgres.data, log=postgres.log)
        note(pg, "kept")
        owner.kill()
        with pg, EmbeddedValkey(home / "valkey", log=home / "v.log"):  # at once, while they still stop
            assert not any(alive(each) for each in servers)
            assert notes(pg) == ["kept"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_without_user_namespaces_runs_it_as_nobody_even_in_a_closed_folder(
    postgres: EmbeddedPostgres, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.stop()
    home.chmod(0o700)
    every = list(identity._for_root())
    for ways, owner in ((every[1:], identity._nobody()), (every[:1], 0)):
        monkeypatch.setattr(identity, "_for_root", lambda ways=ways: iter(ways))
        with EmbeddedPostgres(postgres.data, log=postgres.log) as pg:
            note(pg, f"as {owner}")
            assert pg.data.stat().st_uid == owner
    postgres.start()
    assert len(notes(postgres)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_with_no_way_out_is_told_to_name_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_works", lambda *_: False)
    with pytest.raises(ServerStartError, match="DATABASE_URL"):
        identity.find_identity(Path("postgres"))


def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    wanted = EmbeddedValkey(tmp_path / "data", log=tmp_path / "log").sockets
    wanted.rmdir()
    wanted.symlink_to(tmp_path)
    with pytest.raises(ServerStartError, match="belongs to somebody else"):
        EmbeddedValkey(tmp_path / "data", log=tmp_path / "log").start()


def test_valkey_keeps_its_keys_over_a_restart_and_evicts_none(valkey: EmbeddedValkey) -> None:
    with client(valkey) as connection:
        connection.set("kept", "yes")
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    valkey.restart()
    with client(valkey) as connection:
        assert connection.get("kept") == b"yes"


def test_valkey_comes_back_after_a_kill_and_empty_after_a_wipe(valkey: EmbeddedValkey) -> None:
    with client(valkey) as connection:
        connection.set("kept", "yes")
        connection.execute_command("WAITAOF", 1, 0, 2000)
    valkey.kill()
    valkey.start()
    with client(valkey) as connection:
        assert connection.get("kept") == b"yes"
    valkey.wipe()
    with client(valkey) as connection:
        assert connection.get("kept") is None


def test_celery_can_use_the_url_of_the_broker(valkey: EmbeddedValkey) -> None:
    from kombu import Connection

    with Connection(valkey.url) as connection, connection.SimpleQueue("greetings") as queue:
        queue.put("hello")
        assert queue.get(timeout=5).payload == "hello"
