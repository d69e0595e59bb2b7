"""The admin: what support staff and operators see. Reads through ``reading`` and ``trace``, acts through ``acts``."""
