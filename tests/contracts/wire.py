"""Tasks as they lie on the broker, made by hand: what another release, or another application, would have put there."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import uuid4


def envelope(name: str | None, body: Any, queue: str = "normal", **headers: Any) -> dict[str, Any]:
    """One task in kombu's form. A ``body`` of bytes goes as it is, anything else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    task_id = str(uuid4())
    named = {"task": name, "id": task_id, "root_id": task_id} if name else {}
    return {
        "body": base64.b64encode(raw).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "retries": 0, "ignore_result": True, **named, **headers},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }


def task(name: str, *args: Any, queue: str = "normal", **kwargs: Any) -> dict[str, Any]:
    """A well-formed call."""
    return envelope(
        name, [list(args), kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}], queue
    )
