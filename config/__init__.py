"""Wiring: settings, URLs, Celery, and the processes of `bin/up`."""

__all__ = ["celery_app"]


def __getattr__(name: str) -> object:
    # `celery -A config` and Django both look here; importing Celery only then keeps `config.up` quick to its first line.
    if name in {"celery_app", "app"}:
        from config.celery import app

        return app
    raise AttributeError(name)
