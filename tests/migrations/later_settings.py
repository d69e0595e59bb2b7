"""The settings of a later release, which has two more migrations."""

from config.settings import *  # noqa: F403

MIGRATION_MODULES = {"deliveries": "tests.migrations.later"}
