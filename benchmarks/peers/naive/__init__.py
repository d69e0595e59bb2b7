"""Django + Celery as most people write it first: a row per message, a task per message, a result row per task.

Fair because nothing in it is slow on purpose: it is what the documentation of Django, Celery, django-celery-results and
requests shows, with their defaults, and with the retries that a real sender needs. Eight prefork processes on two cores,
since its tasks wait for the provider most of the time.
"""
