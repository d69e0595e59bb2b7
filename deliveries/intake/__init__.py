"""Taking messages in: from a checked draft to committed rows. Called by the API, the commands and the callbacks."""

from deliveries.intake.accept import (
    Accepted,
    IdempotencyConflict,
    IdTaken,
    Place,
    TooLate,
    accept,
    accept_one,
    insert,
    ring,
)
from deliveries.intake.draft import Draft, InvalidMessage, draft

__all__ = [
    "Accepted",
    "Draft",
    "IdTaken",
    "IdempotencyConflict",
    "InvalidMessage",
    "Place",
    "TooLate",
    "accept",
    "accept_one",
    "draft",
    "insert",
    "ring",
]
