"""The Django app: rows, life cycle, delivery, API, admin."""
