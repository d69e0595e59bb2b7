"""Django + Celery by somebody who knows both: still a row and a task per message, and nothing wasted around them.

Fair because all that is usually advised is done: database connections are kept (Celery reconnects for every task
otherwise), HTTP connections too, no results are stored, only the columns that change are written, the acknowledgement
is late so that nothing is lost, prefetching is on, gossip, mingling and heartbeats are off. As many worker processes as
Chaski has, with as many threads each.
"""
