"""Django's settings."""

from __future__ import annotations

import os

from environ import Env

SECRET_KEY = "benchmark"
INSTALLED_APPS = ["django.contrib.contenttypes", "post_office"]
DATABASES = {"default": Env.db_url_config(os.environ["DATABASE_URL"])}
TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True},
    {"BACKEND": "post_office.template.backends.post_office.PostOfficeTemplates", "APP_DIRS": True},
]
USE_TZ = True
EMAIL_BACKEND = "post_office.EmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["SMTP_PORT"])
POST_OFFICE = {"BATCH_SIZE": 500, "LOG_LEVEL": 1, "MAX_RETRIES": 3}
