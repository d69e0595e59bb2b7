"""The worker's consumer: what it cannot take is parked instead of dropped. Named in CELERY_WORKER_CONSUMER.

Celery's own answers to an unknown task, an unreadable one and one that is none are a line in the log and an
acknowledgement. Here each stays unacknowledged until the database has it; while the database is away it is held for five
seconds and then given back to the tail of its queue, behind everything that can be done.
"""

from __future__ import annotations

from typing import Any

from celery.utils.log import get_logger
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.exceptions import KombuError

from config.broker import Transport
from deliveries import task_contract
from deliveries.models.parked import Reason
from deliveries.parking import Lot, Stray

logger = get_logger(__name__)

#: What a payload that is none of ours raises on its way through Celery.
UNREADABLE = (KombuError, KeyError, TypeError, ValueError, AttributeError)


class Consumer(CeleryConsumer):
    """Celery's consumer with a parking lot."""

    connection_errors: tuple[type[Exception], ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.lot = Lot()
        self.known: dict[str, task_contract.Signature] = {}
        Transport.garbage = staticmethod(self.on_garbage)
        super().__init__(*args, **kwargs)

    def update_strategies(self) -> None:
        """Learn what the tasks take, each time that Celery does."""
        super().update_strategies()
        self.known = task_contract.of(self.app).tasks  # type: ignore[assignment]

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Take a task from the broker: look at it, then do with it what Celery does."""
        take = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            try:
                if self._fits(message):
                    take(message)
            except self.connection_errors:
                raise
            except UNREADABLE as error:
                self.on_decode_error(message, error)

        return on_task_received

    def _fits(self, message: Any) -> bool:
        """Can the task be done? Notes what a newer release added; parks what does not fit at all."""
        signature = self.known.get((message.headers or {}).get("task", ""))
        if signature is None:
            return True  # Celery's own tasks, and unknown ones: Celery tells them apart
        args, kwargs, _ = message.payload
        more = sorted(set(kwargs) - set(signature.arguments)) if signature.takes_more else []
        wrong = signature.unfit(args, kwargs)
        if wrong:
            self._park(message, Reason.UNFIT_ARGUMENTS, wrong)
            return False
        if kwargs.get("version", 0) > signature.version:
            self._note(message, Reason.UNKNOWN_VERSION, f"{kwargs['version']}, and {signature.version} is known")
        elif more:
            self._note(message, Reason.EXTRA_ARGUMENTS, ", ".join(more))
        return True

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """No task at all."""
        self._park(message, Reason.UNREADABLE, "it names no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task of another release, or of another application."""
        self._park(message, Reason.UNKNOWN_TASK)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task that breaks Celery's protocol, or is in a form that is not accepted here."""
        self._park(message, Reason.UNREADABLE, type(exc).__name__)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A body that is not what its headers say."""
        self._park(message, Reason.UNREADABLE, type(exc).__name__)

    def on_garbage(self, queue: str, element: str) -> None:
        """What is not even in kombu's form. It is on the broker no more, so it stays here until the database has it."""

        def after(parked: bool) -> None:  # noqa: FBT001
            if not parked:
                self.on_garbage(queue, element)

        self.lot.put(Stray(Reason.UNREADABLE, queue, payload=element, detail="it is no task at all"), after)

    def _park(self, message: Any, reason: Reason, detail: str = "") -> None:
        self.lot.put(_stray(message, reason, detail), lambda parked: self.call_soon(self._settle, message, parked))

    def _settle(self, message: Any, parked: bool) -> None:  # noqa: FBT001
        if message.acknowledged:
            return
        if parked:
            message.ack_log_error(logger, self.connection_errors)
        else:
            message.reject_log_error(logger, self.connection_errors, requeue=True)

    def _note(self, message: Any, reason: Reason, detail: str) -> None:
        self.lot.put(_stray(message, reason, detail), lambda _: None)


def _stray(message: Any, reason: Reason, detail: str) -> Stray:
    headers = message.headers if isinstance(message.headers, dict) else {}
    body = message.body
    return Stray(
        reason,
        queue=str((message.delivery_info or {}).get("routing_key", "")),
        name=str(headers.get("task", "")),
        task_id=str(headers.get("id", "")),
        payload=body.decode(errors="replace") if isinstance(body, bytes) else str(body),
        detail=detail,
    )
