"""Queues COUNT mails: `python -m benchmarks.peers.post_office_project.fill COUNT`."""

from __future__ import annotations

import sys

import django

if __name__ == "__main__":
    django.setup()
    from post_office import mail

    mail.send_many(
        [
            {
                "recipients": f"customer-{number}@shop.example",
                "sender": "shop@shop.example",
                "subject": f"Tu pedido {number}",
                "message": f"Hola, tu pedido {number} va en camino y llega hoy entre las 15:00 y las 18:00.",
            }
            for number in range(int(sys.argv[1]))
        ]
    )
    print("{}")
