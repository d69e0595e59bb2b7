"""The contract of the tasks: names, arguments and versions, kept in `deliveries/tasks.lock.json`, and what breaks it.

While a release goes out, workers of the old one take what publishers of the new one ring, and the other way round. Used by
`manage.py tasklock` and by the tests, which replay what released publishers really sent.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery, Task

LOCK = Path(__file__).with_name("tasks.lock.json")
#: An argument of this kind takes what a newer release gives too much.
TAKES_MORE = "var_keyword"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument. ``kind`` as `inspect` names it, in lower case; ``default`` as `repr` shows it, None where required."""

    name: str
    kind: str
    default: str | None = None

    @property
    def required(self) -> bool:
        """Must every publisher give it?"""
        return self.default is None and not self.kind.startswith("var_")


@dataclass(frozen=True, slots=True)
class Signature:
    """What one task takes. ``version`` is that of its arguments' meaning."""

    version: int
    arguments: Mapping[str, Argument]

    @property
    def takes_more(self) -> bool:
        """Does it take arguments that it does not know?"""
        return any(argument.kind == TAKES_MORE for argument in self.arguments.values())

    def unfit(self, args: list[Any], kwargs: Mapping[str, Any]) -> str:
        """Why a call with these arguments would fail; empty when it would not."""
        parameters = [
            inspect.Parameter(
                argument.name,
                getattr(inspect.Parameter, argument.kind.upper()),
                default=inspect.Parameter.empty if argument.default is None else argument.default,
            )
            for argument in self.arguments.values()
        ]
        try:
            inspect.Signature(parameters).bind(*args, **kwargs)
        except TypeError as error:
            return str(error)
        return ""


@dataclass(frozen=True, slots=True)
class Contract:
    """Every task by its name, and the queues that workers take from, retired ones among them."""

    tasks: Mapping[str, Signature]
    queues: tuple[str, ...]


def of(app: Celery) -> Contract:
    """The contract that the running code keeps."""
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    queues = tuple(sorted(queue.name for queue in app.conf.task_queues))
    return Contract({name: signature(app.tasks[name]) for name in names}, queues)


def signature(task: Task[Any, Any]) -> Signature:
    """What ``task`` takes."""
    arguments = {
        name: Argument(name, parameter.kind.name.lower(), _default(parameter))
        for name, parameter in inspect.signature(task.run).parameters.items()
    }
    return Signature(int(getattr(task, "version", 1)), arguments)


def _default(parameter: inspect.Parameter) -> str | None:
    return None if parameter.default is inspect.Parameter.empty else repr(parameter.default)


def read(file: Path = LOCK) -> Contract:
    """The contract that a lock file holds."""
    held = json.loads(file.read_text())
    tasks = {
        name: Signature(task["version"], {given["name"]: Argument(**given) for given in task["arguments"]})
        for name, task in held["tasks"].items()
    }
    return Contract(tasks, tuple(held["queues"]))


def text(contract: Contract) -> str:
    """The lock file, one argument to a line."""
    tasks = ",\n".join(_task_text(name, task) for name, task in contract.tasks.items())
    return f'{{\n  "queues": {json.dumps(contract.queues)},\n  "tasks": {{\n{tasks}\n  }}\n}}\n'


def _task_text(name: str, task: Signature) -> str:
    arguments = ",\n".join(f"      {json.dumps(_argument(argument))}" for argument in task.arguments.values())
    return f'    {json.dumps(name)}: {{"version": {task.version}, "arguments": [\n{arguments}\n    ]}}'


def _argument(argument: Argument) -> dict[str, str]:
    given = {"name": argument.name, "kind": argument.kind}
    return given if argument.default is None else {**given, "default": argument.default}


def breaks(old: Contract, new: Contract) -> Iterator[str]:
    """What publishers or workers of ``old`` cannot live with beside ``new``, a sentence each, with what to do."""
    for name in old.queues:
        if name not in new.queues:
            yield f"Queue {name} is gone, and old publishers still fill it: name it in RETIRED_QUEUES of config/celery.py."
    for name, before in old.tasks.items():
        if name in new.tasks:
            yield from _broken(name, before, new.tasks[name])
        else:
            yield f"Task {name} is gone, and old publishers still name it: keep it, beside its new name, for one more release."


def _broken(name: str, before: Signature, now: Signature) -> Iterator[str]:
    for argument in before.arguments.values():
        kept = now.arguments.get(argument.name)
        if kept is None:
            yield f"{name} lost its argument {argument.name}, and old publishers still give it: keep it, even unused."
        elif kept.required and not argument.required:
            yield f"{name}: {argument.name} lost its default, and old publishers may leave it out: give it one."
        elif kept.kind != argument.kind:
            yield f"{name}: {argument.name} was {argument.kind} and is {kept.kind}: old calls may not fit; leave it."
    for argument in now.arguments.values():
        if argument.name not in before.arguments:
            yield from _broken_by(name, before, argument)
    if now.version < before.version:
        yield f"{name}: its version went back from {before.version} to {now.version}: versions only rise."


def _broken_by(name: str, before: Signature, argument: Argument) -> Iterator[str]:
    if argument.required:
        yield f"{name}: the new argument {argument.name} has no default, and old publishers do not give it: give it one."
    elif not before.takes_more and not argument.kind.startswith("var_"):
        yield f"{name}: workers of the old release refuse the new argument {argument.name}: add a new task instead."
