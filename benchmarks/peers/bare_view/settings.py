"""Django's settings and its one URL."""

from __future__ import annotations

import os

from environ import Env

SECRET_KEY = "benchmark"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["benchmarks.peers.bare_view"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]  # for Content-Length, so that connections stay open
ROOT_URLCONF = "benchmarks.peers.bare_view.urls"
DATABASES = {"default": {**Env.db_url_config(os.environ["DATABASE_URL"]), "CONN_MAX_AGE": 60}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
