"""The reference pages that are written by the code: providers with their options, and the simulator's faults.

`python -m channels.reference` writes them; a test fails when they are not what the code says.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from channels.attachments import Carriage
from channels.base import PACE, Option, Provider
from channels.registry import providers
from channels.simulator.faults import table

DOCS = Path(__file__).resolve().parent.parent / "docs" / "reference"
_WRITTEN = "<!-- Written by `python -m channels.reference`; change the code, not this page. -->\n\n"


def pages() -> dict[Path, str]:
    """File -> its whole text."""
    return {DOCS / "providers.md": _providers(), DOCS / "simulator.md": _simulator()}


def main() -> None:
    """Write the pages."""
    for file, text in pages().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(f"written: {file}")


def _providers() -> str:
    classes = sorted(set(providers().values()), key=lambda cls: cls.name)
    head = (
        "# Providers\n\nAn account is made with `manage.py account create CHANNEL PROVIDER NAME`; its options are given as"
        " `--option name=value`, its secrets as `--secret name=value`. A message's own options are the object `options`"
        " of a message. Every account takes these options too:\n\n| account option | what it is |\n| --- | --- |\n"
        + "".join(f"| `{option.name}` | {_markdown(option.help)} |\n" for option in PACE)
    )
    return _WRITTEN + head + "".join("\n" + "\n".join(_provider(cls)) for cls in classes)


def _provider(cls: type[Provider]) -> Iterator[str]:
    yield f"## {cls.name}\n"
    yield f"{_markdown(inspect.cleandoc(cls.__doc__ or ''))}\n"
    yield f"Channels: {', '.join(f'`{channel}`' for channel in cls.channels)}. {_promises(cls)}\n"
    if cls.options:
        yield from ("| account option | | what it is |", "| --- | --- | --- |")
        yield from (f"| `{option.name}` | {_kind(option)} | {_markdown(option.help)} |" for option in cls.options)
        yield ""
    if cls.message_options:
        yield from ("| message option | what it is |", "| --- | --- |")
        yield from (f"| `{name}` | {_markdown(words)} |" for name, words in cls.message_options.items())
        yield ""


def _promises(cls: type[Provider]) -> str:
    repeat = "is dropped by who receives it" if cls.idempotent else "may reach the recipient twice"
    what = [word for word, true in (("receipts", cls.receipts), ("replies", cls.replies)) if true]
    back = f"{' and '.join(what).capitalize()} come back" if what else "Nothing comes back"
    asked = (
        "It can be asked for a message (`--in-doubt reconcile`)"
        if cls.reconciles
        else "It cannot be asked for a message"
    )
    ends = f"An attempt ends within {cls.deadline_seconds:g} seconds."
    return f"A repeat {repeat}. {back}. {asked}. {ends}{_pace(cls)}{_takes(cls)}"


def _pace(cls: type[Provider]) -> str:
    usual = cls.usual_rates
    through = [f"{usual.account} through an account"] if usual.account else []
    to = [f"{usual.recipient} to a recipient"] if usual.recipient else []
    return f" Unless told otherwise it is sent at most {' and '.join(through + to)}." if through or to else ""


_CARRIED = {
    Carriage.FETCHED: "fetches them for each message",
    Carriage.ENCLOSED: "gets them enclosed in each message",
    Carriage.KEPT: "gets each once and keeps it",
}


def _takes(cls: type[Provider]) -> str:
    takes = cls.takes
    if takes is None:
        return " It takes no files."
    kinds = ", ".join(f"{kind} ({limit / 1_000_000:g} MB)" for kind, limit in takes.bytes_of.items())
    how = _CARRIED[takes.carriage]
    return f" A message carries up to {takes.count} of these files, and the vendor {how}: {kinds}."


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("<", "&lt;").replace("|", "\\|")


def _kind(option: Option) -> str:
    words = [word for word, true in (("required", option.required), ("secret", option.secret)) if true]
    if option.default:
        words.append(f"default `{option.default}`")
    return ", ".join(words)


def _simulator() -> str:
    return _WRITTEN + inspect.cleandoc(_SIMULATOR).format(table=table())


_SIMULATOR = """
    # The provider simulator

    `manage.py simulator` plays the vendors on this machine; `./bin/up` starts it. Its ports are 8900 for HTTP and 8925 for
    SMTP unless `--port` and `--smtp-port` say otherwise. Point accounts at it:

    | provider | options |
    | --- | --- |
    | `twilio` | `base_url=http://127.0.0.1:8900/twilio`; any login; receipts are signed with its `auth_token` |
    | `telegram` | `base_url=http://127.0.0.1:8900/telegram`; any `token` of the form `1000000:simulated` |
    | `webhook` | `base_url=http://127.0.0.1:8900/webhook`; the recipient's path is kept |
    | `smtp` | `host=127.0.0.1 port=8925 security=none`; any login but the password `wrong` |

    ## Faults by recipient

    Write to one of these recipients and the vendor does what the last column says. Any other recipient is ordinary. The
    `sandbox` provider heeds the same recipients without a network.

    {table}
    On SMTP a refusal of the recipient or of the login comes at RCPT, everything else after the final dot; `server_error`
    is a 451, which takes nothing, so it counts as throttled there and not as transient.

    ## Faults by seed

    With `manage.py simulator --fault-rate 0.1 --seed demo` a tenth of the attempts to ordinary recipients meets one of the
    faults that a retry mends. The same seed, message and attempt always meet the same one.

    ## The ledger

    Every acceptance is a JSON line in the file that `--ledger` names, on disk (fsync) before the sender is told: `time` (UTC),
    `provider`, `account`, `recipient`, `message_id` (where the wire carries it: not on Telegram's), `provider_message_id`
    and `body_sha256`. Counts since the start are at http://127.0.0.1:8900/ledger/summary.
    """


if __name__ == "__main__":
    main()
