"""The WSGI application that gunicorn serves."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# The Celery application must be the current one before anything rings.
import config.celery

_django = get_wsgi_application()

from deliveries.api.express import Express  # noqa: E402 - its modules need Django set up

application = Express(_django)
__all__ = ["application", "config"]
