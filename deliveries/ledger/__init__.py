"""The ledger: does every accepted message still exist, and do the rows agree with each other and with what others kept?

Called by `manage.py ledger` and after every fault test. It reads one snapshot and changes nothing; each check is one
statement that returns what breaks it, so an empty answer is the proof. docs/reference/invariants.md says in words what
each sees and what it cannot see.
"""

from deliveries.ledger.balance import CHECKS, Ledger, Violation, check, examine
from deliveries.ledger.checks import Check
from deliveries.ledger.outside import Files, UnusableFile

__all__ = ["CHECKS", "Check", "Files", "Ledger", "UnusableFile", "Violation", "check", "examine"]
