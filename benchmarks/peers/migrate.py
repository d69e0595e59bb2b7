"""Makes the tables of the project that DJANGO_SETTINGS_MODULE names: `python -m benchmarks.peers.migrate`."""

from __future__ import annotations

import django
from django.core.management import call_command

if __name__ == "__main__":
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    print("{}")
