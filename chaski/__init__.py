"""The client that other services install: `chaski.send()`."""
