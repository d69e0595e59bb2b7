"""A Django view that parses JSON and inserts one row: the least that any service over HTTP does which keeps what it is told.

Fair because nothing else is in its way: no middleware but the one for Content-Length, no authentication, no validation, no
index but the primary key,
and a database connection that stays open.
"""
