"""Django's PostgreSQL backend with an end to every wait: the ENGINE of the database settings."""
