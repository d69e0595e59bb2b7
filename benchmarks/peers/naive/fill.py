"""Makes COUNT rows and a task for each: `python -m benchmarks.peers.naive.fill COUNT`."""

from __future__ import annotations

import sys

import django

from benchmarks.peers.naive.celery import app

if __name__ == "__main__":
    django.setup()
    app.set_default()
    from benchmarks.peers.naive.models import Sms
    from benchmarks.peers.naive.tasks import send_sms

    for number in range(int(sys.argv[1])):
        text = f"Hola, tu pedido {number} va en camino y llega hoy entre las 15:00 y las 18:00."
        send_sms.delay(Sms.objects.create(to=f"+5691{number:07}", text=text).pk)
    print("{}")
