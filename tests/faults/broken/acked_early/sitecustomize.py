"""The naive build: a task is acknowledged before it runs, and nothing but its task ever looks at a message."""

from rewriting import rewrite

rewrite("config.settings", {"CELERY_TASK_ACKS_LATE = True": "CELERY_TASK_ACKS_LATE = False"})
rewrite(
    "deliveries.relay",
    {
        '            self._job("end_leases", unless_held(sweep.end_leases))\n': "",
        '            self._job("expire", unless_held(sweep.expire))\n': "",
        '            self._job("unblock", unless_held(self._heads.unblock))\n': "",
        "            for bell in self.due():": "            for bell in ():",
    },
)
