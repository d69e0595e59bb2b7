"""Django's settings, with what makes Celery fast beside Django."""

from __future__ import annotations

import os

from environ import Env

SECRET_KEY = "benchmark"
INSTALLED_APPS = ["django.contrib.contenttypes", "benchmarks.peers.tuned"]
DATABASES = {"default": Env.db_url_config(os.environ["DATABASE_URL"])}
DATABASES["default"]["CONN_MAX_AGE"] = None
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

PROVIDER_URL = os.environ["PROVIDER_URL"]

CELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 4
#: Celery's Django fixup closes the connection after every task otherwise, whatever CONN_MAX_AGE says.
CELERY_DB_REUSE_MAX = 10_000
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
