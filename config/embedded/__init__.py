"""The PostgreSQL and Valkey that come with the locked requirements, run as our own children.

For trying Chaski, for its tests and for small single hosts; `bin/up`, the test suite and the fault tests use
them. With `DATABASE_URL` and `CHASKI_BROKER_URL` set nothing of this starts.
"""

from config.embedded.errors import ServerStartError
from config.embedded.postgres import EmbeddedPostgres
from config.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedValkey", "ServerStartError"]
