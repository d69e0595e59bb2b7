"""Wiring: settings, URLs, Celery, and the processes of `bin/up`."""
