"""While batches are taken in threads change places sooner, and afterwards as before."""

from __future__ import annotations

import sys

from deliveries.intake.batch import _Changing


def test_the_usual_comes_back_when_the_last_batch_is_over() -> None:
    usual, changing = sys.getswitchinterval(), _Changing()
    changing.more()
    changing.more()
    changing.less()
    assert sys.getswitchinterval() < usual
    changing.less()
    assert sys.getswitchinterval() == usual
