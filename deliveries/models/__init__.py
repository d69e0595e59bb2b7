"""The tables, one file per concern. Rows that are written by the million are written by SQL in the stage that owns them."""

from deliveries.models.accounts import Account, Endpoint, Route, Template
from deliveries.models.breakers import Breaker, BreakerEvent
from deliveries.models.control import Audit, Heartbeat, Lineage, Pause, PeriodicSlot, Suppression, Watch
from deliveries.models.evidence import Attempt, Event, Inquiry, Receipt, Reroute, UnmappedCode
from deliveries.models.files import File, KeptMedia
from deliveries.models.messages import Acceptance, Batch, Idempotency, Message, Pending, Told, Untold
from deliveries.models.parked import Parked
from deliveries.models.replies import Contact, Reply
from deliveries.models.services import ApiKey, Service

__all__ = [
    "Acceptance",
    "Account",
    "ApiKey",
    "Attempt",
    "Audit",
    "Batch",
    "Breaker",
    "BreakerEvent",
    "Contact",
    "Endpoint",
    "Event",
    "File",
    "Heartbeat",
    "Idempotency",
    "Inquiry",
    "KeptMedia",
    "Lineage",
    "Message",
    "Parked",
    "Pause",
    "Pending",
    "PeriodicSlot",
    "Receipt",
    "Reply",
    "Reroute",
    "Route",
    "Service",
    "Suppression",
    "Template",
    "Told",
    "UnmappedCode",
    "Untold",
    "Watch",
]
