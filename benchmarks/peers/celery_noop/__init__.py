"""Celery alone, doing nothing: what the machinery of one task costs, and the most that one task per message can reach.

Fair because everything that costs is off: no result backend, no events, no Django, no logging. Late acknowledgement is on,
as for anything durable; it is also what tells when the last task has ended, and costs nothing that can be measured.
"""
