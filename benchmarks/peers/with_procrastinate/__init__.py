"""procrastinate: jobs are rows of PostgreSQL, as durable as Chaski's messages, one job per message.

Fair because it is as its page shows it, with 32 jobs at once and one kept-open aiohttp session; it defers in batches.
"""
