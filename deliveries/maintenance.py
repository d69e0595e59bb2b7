"""Periodic upkeep: partitions ahead of time, old keys and receipts out of the way. Called by beat's task once a minute."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connection

#: The guard against two beats: whoever writes the slot does its work.
SLOT = """
INSERT INTO periodic_slot (job, slot) VALUES (%(job)s, date_trunc(%(every)s, chaski_now()))
ON CONFLICT DO NOTHING RETURNING 1
"""
FORGET_SLOTS = "DELETE FROM periodic_slot WHERE slot < chaski_now() - interval '7 days'"
FORGET_KEYS = """
DELETE FROM idempotency WHERE (service_id, key) IN (
    SELECT service_id, key FROM idempotency WHERE created_at < chaski_now() - interval '96 hours'
    ORDER BY created_at LIMIT 5000)
"""
FORGET_HEARTBEATS = "DELETE FROM heartbeat WHERE seen_at < chaski_now() - interval '1 day'"
FORGET_PARKED = "DELETE FROM parked WHERE last_at < chaski_now() - interval '30 days'"
FORGET_BREAKERS = "DELETE FROM breaker_event WHERE at < chaski_now() - interval '90 days'"
#: A few at a time: each may hold 25 MB.
FORGET_FILES = """
DELETE FROM file WHERE id IN (
    SELECT id FROM file WHERE kept_until < chaski_now() ORDER BY kept_until LIMIT 50)
    AND kept_until < chaski_now()
"""
#: What vendors call files that are gone, or called them once.
FORGET_MEDIA = """
DELETE FROM kept_media WHERE (file_id, account_id, place) IN (
    SELECT file_id, account_id, place FROM kept_media o WHERE kept_until < chaski_now()
        OR NOT EXISTS (SELECT FROM file f WHERE f.id = o.file_id) LIMIT 5000)
"""
FORGET_REROUTES = """
DELETE FROM reroute WHERE id IN (
    SELECT id FROM reroute WHERE at < chaski_now() - interval '90 days' ORDER BY at LIMIT 5000)
"""
#: What people wrote, and when they last did. The services have it.
FORGET_REPLIES = """
DELETE FROM reply WHERE id IN (
    SELECT id FROM reply WHERE received_at < chaski_now() - interval '400 days' ORDER BY received_at LIMIT 5000)
"""
FORGET_CONTACTS = """
DELETE FROM contact WHERE (account_id, person) IN (
    SELECT account_id, person FROM contact WHERE replied_at < chaski_now() - interval '400 days' LIMIT 5000)
"""
FORGET_CODES = "DELETE FROM unmapped_code WHERE last_at < chaski_now() - interval '180 days'"
PARTITIONS = "SELECT chaski_ensure_partitions(3)"


def run() -> dict[str, int]:
    """Do what this minute asks for; the number of rows by job."""
    done: dict[str, int] = {}
    with connection.cursor() as cursor:
        cursor.execute(SLOT, {"job": "minute", "every": "minute"})
        if cursor.fetchone():
            cursor.execute(FORGET_KEYS)
            done["idempotency_keys"] = cursor.rowcount
            cursor.execute(FORGET_FILES)
            done["files"] = cursor.rowcount
            cursor.execute(FORGET_REROUTES)
            done["reroutes"] = cursor.rowcount
            cursor.execute(FORGET_MEDIA)
            done["media_ids"] = cursor.rowcount
        cursor.execute(SLOT, {"job": "hour", "every": "hour"})
        if cursor.fetchone():
            cursor.execute(PARTITIONS)
            done["partitions"] = int(cursor.fetchone()[0])
            cursor.execute(FORGET_SLOTS)
            cursor.execute(FORGET_HEARTBEATS)
            done["heartbeats"] = cursor.rowcount
            cursor.execute(FORGET_PARKED)
            done["parked"] = cursor.rowcount
            cursor.execute(FORGET_REPLIES)
            done["replies"] = cursor.rowcount
            cursor.execute(FORGET_CONTACTS)
            done["contacts"] = cursor.rowcount
            cursor.execute(FORGET_CODES)
            done["unmapped_codes"] = cursor.rowcount
            cursor.execute(FORGET_BREAKERS)
            done["breaker_changes"] = cursor.rowcount
    done["at"] = int(datetime.now(UTC).timestamp())
    return done
