"""dramatiq over Redis: threads, late acknowledgement, retries by default.

Fair because it is as its page shows it, with two processes of sixteen threads and a kept-open session in each.
"""
