"""django-post_office as its page shows it: mails are rows, and `send_queued_mail` sends them with two processes.

Fair because its batches are larger than by default (500 instead of 100), which makes it faster, and its log keeps failures
only; threads per process are its own five, each keeping its connection to the mail server.
"""
