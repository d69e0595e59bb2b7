"""Logs and Sentry: one event name plus fields, ids and never recipients, bodies or secrets. Set up once per process.

Called by ``config.settings``.
"""

from __future__ import annotations

import logging.config
from collections.abc import MutableMapping
from typing import Any

import sentry_sdk
import structlog
from sentry_sdk.integrations.argv import ArgvIntegration

from config.log_budget import BoundedEvents

#: Fields that must never leave the process, whoever logs them.
PRIVATE = frozenset(
    {"to", "recipient", "text", "html", "subject", "body", "content", "secret", "secrets", "api_key", "authorization"}
)


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank private fields, for the day on which somebody logs one."""
    for name in PRIVATE & set(event):
        event[name] = "[redacted]"
    return event


def set_up(form: str, release: str) -> None:
    """Route structlog and the standard library's logging to stderr as JSON or for a console."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    # The pretty tracebacks show local variables, which hold recipients and bodies.
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    renderer = structlog.processors.JSONRenderer() if form == "json" else console
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "chaski": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": shared,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        structlog.processors.format_exc_info if form == "json" else _as_is,
                        renderer,
                    ],
                }
            },
            "handlers": {"stderr": {"class": "config.log_budget.BoundedHandler", "formatter": "chaski"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {
                "deliveries": {"level": "INFO"},
                "channels": {"level": "INFO"},
                "config": {"level": "INFO"},
                "gunicorn.error": {"handlers": [], "propagate": True},  # it brings a handler of its own
            },
        }
    )
    structlog.contextvars.bind_contextvars(**({"release": release} if release else {}))


def _as_is(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event


def scrub(event: Any, _: Any) -> Any:
    """Sentry's ``before_send``: no request bodies, no cookies, no local variables that could hold a message."""
    request = event.get("request", {})
    for name in ("data", "cookies", "query_string"):
        request.pop(name, None)
    request.get("headers", {}).pop("Authorization", None)
    for value in event.get("exception", {}).get("values", []):
        for frame in (value.get("stacktrace") or {}).get("frames", []):
            frame.pop("vars", None)
    for name in PRIVATE & set(event.get("extra", {})):
        event["extra"][name] = "[redacted]"
    return event


def watch(dsn: str, environment: str, release: str) -> None:
    """Report errors to Sentry; without a DSN do nothing."""
    if not dsn:
        return
    sentry_sdk.init(
        dsn=dsn,
        environment=environment,
        release=release or None,
        data_collection={
            "user_info": False,
            "cookies": {"mode": "off"},
            "http_bodies": [],
            "url_query_params": {"mode": "off"},
            "database_query_data": False,
            "queues": False,
            "stack_frame_variables": False,
        },
        max_request_body_size="never",
        disabled_integrations=[ArgvIntegration()],  # a command line may hold `--secret token=...`
        before_send=BoundedEvents(scrub),
        traces_sample_rate=0.0,
    )
