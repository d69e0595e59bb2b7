"""Only the life cycle changes a status, and only intake writes the first one: a search through the source proves it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = {"deliveries/lifecycle.py"}
#: `UPDATE message ... SET ... status =` in a statement, whatever lies between.
UPDATES = re.compile(r"UPDATE\s+message\b[^;]*?\bSET\b[^;]*?\bstatus\s*=", re.IGNORECASE | re.DOTALL)
INSERTS = re.compile(r"INSERT\s+INTO\s+message\b", re.IGNORECASE)


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("deliveries", "config"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in file.parts:
                yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def assigns_status(node: ast.AST) -> bool:
    """``anything.status = ...`` or ``queryset.update(status=...)``."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        # An error that carries an HTTP status names it so; a message never does this outside the life cycle.
        return any(
            isinstance(t, ast.Attribute) and t.attr == "status" and getattr(t.value, "id", "") != "self"
            for t in targets
        )
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("update", "update_or_create") and any(k.arg == "status" for k in node.keywords)
    return False


def test_no_statement_elsewhere_updates_a_message_s_status() -> None:
    found = {place for place, tree in sources() if any(UPDATES.search(text) for text in texts(tree))}
    assert found == PLACES


def test_no_code_elsewhere_assigns_a_status() -> None:
    assert not {place for place, tree in sources() if any(assigns_status(node) for node in ast.walk(tree))}


def test_messages_are_inserted_by_intake_alone() -> None:
    found = {place for place, tree in sources() if any(INSERTS.search(text) for text in texts(tree))}
    assert found == {"deliveries/intake/accept.py"}


def test_the_search_finds_what_it_looks_for() -> None:
    assert UPDATES.search("UPDATE message m SET\n updated_at = now(), status = 'sent'")
    assert not UPDATES.search("UPDATE message m SET updated_at = now()")
    assert assigns_status(ast.parse("message.status = 'sent'").body[0])
    call = ast.parse("Message.objects.filter(pk=1).update(status='sent')").body[0]
    assert isinstance(call, ast.Expr)
    assert assigns_status(call.value)
