"""What one check is. Used by the files beside this one, one for each part of the invariants.

Every statement is given ``floor`` (the smallest id that is looked at), ``since`` (the same as a time), ``swept`` (until when
everything that was due must have been done) and the bounds that ``deliveries.ledger.balance`` puts together. It answers with
two columns, an id and what is to be said of it, and bounds every large table by ``floor``, so that a look at the last hour reads
the last hour only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One way in which an invariant can be broken: its number, the words for it, the statement that finds it.

    ``needs`` names the file of outside evidence without which it is left out (``deliveries.ledger.outside``).
    """

    invariant: int
    wrong: str
    sql: str
    needs: str = ""
