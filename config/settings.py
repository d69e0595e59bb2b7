"""Django's settings, from the variables of ``config.variables``. The reasons for Celery's are in docs/explanation/broker.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import environ

from channels.urls import allow_private_networks
from config import logs, variables

BASE_DIR = Path(__file__).resolve().parent.parent
CHASKI_SETTINGS = variables.in_force()


def _value(name: str) -> Any:
    return CHASKI_SETTINGS[name].value


CHASKI_ENV: str = _value("CHASKI_ENV")
PRODUCTION = CHASKI_ENV == "production"
CHASKI_TIME_SCALE: float = _value("CHASKI_TIME_SCALE") if CHASKI_ENV == "test" else 1.0
CHASKI_PUBLIC_URL: str = str(_value("CHASKI_PUBLIC_URL")).rstrip("/")
CHASKI_CREDENTIAL_KEYS: list[str] = _value("CHASKI_CREDENTIAL_KEYS")
CHASKI_PRIVATE_NETWORKS: list[str] = _value("CHASKI_PRIVATE_NETWORKS") or (
    [] if PRODUCTION else ["127.0.0.0/8", "::1/128"]
)
CHASKI_SPILL: str = _value("CHASKI_SPILL") or str(BASE_DIR / ".chaski" / "spill")
CHASKI_FLOWER_URL: str = str(_value("CHASKI_FLOWER_URL")).rstrip("/")
CHASKI_RELEASE: str = _value("CHASKI_RELEASE")
CHASKI_WITNESS: str = _value("CHASKI_WITNESS") or str(BASE_DIR / ".chaski" / "witness")

SECRET_KEY: str = _value("CHASKI_SECRET_KEY")
DEBUG = False
ALLOWED_HOSTS: list[str] = _value("CHASKI_ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = [CHASKI_PUBLIC_URL]

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_results",
    "deliveries",
]
MIDDLEWARE = [
    "deliveries.api.requests.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "deliveries.api.programs.Programs",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "deliveries.admin.policy.AdminPages",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_database = environ.Env.db_url_config(_value("DATABASE_URL") or "postgres://postgres@127.0.0.1:5432/chaski")
_database["ENGINE"] = "deliveries.postgresql"
_database["CONN_MAX_AGE"] = 60
_database["CONN_HEALTH_CHECKS"] = True
_database.setdefault("OPTIONS", {})
_database["OPTIONS"].update(
    {
        "application_name": "chaski",
        # Who vanishes from the network is given up after ten seconds, who answers nothing after the statement's own limit
        # and a margin. The URL may ask for less, as tests do.
        "connect_timeout": 3,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "answer_seconds": min(17.0, float(_database["OPTIONS"].get("answer_seconds", 17.0))),
        # For deliveries.postgresql.prepared alone: Django's own cursors bind on their side and prepare nothing.
        "prepare_threshold": 0,
        "options": " ".join(
            f"-c {name}={value}"
            for name, value in {
                "synchronous_commit": "on",
                "lock_timeout": "3s",
                "statement_timeout": "15s",
                "idle_in_transaction_session_timeout": "15s",
                "timezone": "UTC",
                # What is prepared is planned once for any parameters: planned for each, it took longer than it ran.
                # tests/deliveries/test_plans.py looks at these plans.
                "plan_cache_mode": "force_generic_plan",
            }.items()
        ),
    }
)
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS: list[str] = []

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / ".chaski" / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = PRODUCTION
SECURE_REDIRECT_EXEMPT = [r"^health/", r"^metrics$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if PRODUCTION else None
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 12_000_000

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["deliveries.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["deliveries.api.rendering.Renderer"],
    "DEFAULT_PARSER_CLASSES": ["deliveries.api.parsing.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "deliveries.api.problems.handle",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Chaski",
    "DESCRIPTION": "Send messages to people; every message is kept, retried and explained.",
    "VERSION": "1",
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {"StatusEnum": "deliveries.api.serializers.STATUS_CHOICES"},
}

UNFOLD = {
    "SITE_TITLE": "Chaski",
    "SITE_HEADER": "Chaski",
    "SITE_SUBHEADER": CHASKI_ENV,
    "SITE_SYMBOL": "send",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": "deliveries.admin.navigation.favicon"},
    ],
    "STYLES": ["deliveries.admin.navigation.stylesheet"],
    "SIDEBAR": {"show_search": False, "navigation": "deliveries.admin.navigation.sidebar"},
    "DASHBOARD_CALLBACK": "deliveries.admin.navigation.start_page",
    "COLORS": {
        "primary": {
            "50": "#f0f9ff",
            "100": "#e0f2fe",
            "200": "#bae6fd",
            "300": "#7dd3fc",
            "400": "#38bdf8",
            "500": "#0ea5e9",
            "600": "#0369a1",
            "700": "#075985",
            "800": "#0c4a6e",
            "900": "#0b3c5a",
            "950": "#082f49",
        }
    },
}

CHASKI_BROKER_URL: str = _value("CHASKI_BROKER_URL") or "redis://127.0.0.1:6379/0"
CHASKI_CACHE_URL: str = _value("CHASKI_CACHE_URL") or (CHASKI_BROKER_URL if "redis" in CHASKI_BROKER_URL[:12] else "")

CELERY_BROKER_URL = CHASKI_BROKER_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 300,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 10,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_WORKER_CONSUMER = "config.consumer:Consumer"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_SEND_SENT_EVENT = True
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_DEFAULT_QUEUE = "control"
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2}
CELERY_RESULT_BACKEND = "config.results:DatabaseBackend"
CELERY_RESULT_EXTENDED = True
CELERY_RESULT_EXPIRES = 86_400
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_STORE_ERRORS_EVEN_IF_IGNORED = True
CELERY_DB_REUSE_MAX = 1000
CELERY_TIMEZONE = "UTC"

LOGGING_CONFIG = None

logs.set_up(str(_value("CHASKI_LOG")), CHASKI_RELEASE)
logs.watch(str(_value("SENTRY_DSN")), CHASKI_ENV, CHASKI_RELEASE)
allow_private_networks(CHASKI_PRIVATE_NETWORKS)
