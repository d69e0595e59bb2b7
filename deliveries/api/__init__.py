"""The HTTP API: authentication, shapes, problems. Nothing here writes a row; the stages below do."""
