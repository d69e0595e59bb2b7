"""taskiq over Redis lists: asyncio throughout, the fastest of the peers. It keeps nothing: what a worker holds dies with it.

Fair because it is as its page shows it, with a hundred tasks at once in each process and one kept-open aiohttp session.
"""
