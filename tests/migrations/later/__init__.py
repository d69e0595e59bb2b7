"""The migrations of `deliveries` and two more, as a later release would bring them. See `tests.migrations.later_settings`."""

from deliveries import migrations

__path__ = [*migrations.__path__, *__path__]
