"""What can go wrong with the embedded servers. The messages are for people."""


class ServerStartError(Exception):
    """An embedded server could not be started; says what happened, what was looked at and what to do."""


class InUseError(Exception):
    """The lock file is held by another process; the message is its path."""
