"""Django's settings, as `startproject` would have them for an application of one model."""

from __future__ import annotations

import os

from environ import Env

SECRET_KEY = "benchmark"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_celery_results", "benchmarks.peers.naive"]
DATABASES = {"default": Env.db_url_config(os.environ["DATABASE_URL"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

PROVIDER_URL = os.environ["PROVIDER_URL"]

CELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]
CELERY_RESULT_BACKEND = "django-db"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
