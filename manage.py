#!/usr/bin/env python3
"""Django's command line. Runs with the repository's own `.venv` when the calling Python lacks Django."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> None:
    """Run one management command."""
    own = ROOT / ".venv" / "bin" / "python"
    if importlib.util.find_spec("django") is None:
        if not own.exists():
            sys.exit(
                "Django is not installed for this Python and there is no .venv yet; run ./bin/up or ./bin/test once."
            )
        os.execv(own, [str(own), *sys.argv])  # noqa: S606 - our own interpreter
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    sys.path.insert(0, str(ROOT))
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db.utils import OperationalError

    try:
        import config.celery  # noqa: F401 - makes our Celery application the current one

        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"Chaski cannot start: {error}")
    except OperationalError as error:
        sys.exit(f"The database does not answer: {str(error).strip()}\nStart PostgreSQL, or mend DATABASE_URL.")


if __name__ == "__main__":
    main()
