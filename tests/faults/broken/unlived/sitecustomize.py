"""A build that writes what became of a message straight into its status, past the life cycle."""

from rewriting import rewrite

rewrite(
    "deliveries.delivery.settle",
    {
        "    moved = lifecycle.apply(cursor, [_move(row) for row in rows if row.id in mine])\n": (
            "    moved = set(mine)\n"
            "    for row in rows:\n"
            "        if row.id in mine:\n"
            "            cursor.execute(\n"
            '                "UPDATE message SET status = %s, attempt_count = %s, updated_at = chaski_now() WHERE id = %s",\n'
            "                [str(row.decision.path[-1]), row.number, row.id],\n"
            "            )\n"
        )
    },
)
