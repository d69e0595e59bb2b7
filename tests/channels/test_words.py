"""One word to be left alone, one to be written to again, and everything else that people write."""

from __future__ import annotations

import pytest

from channels.words import Wish, wish


@pytest.mark.parametrize(
    "text",
    [
        "STOP",
        " stop. ",
        "Baja",
        "¡BAJA!",
        "Darse  de baja",
        "UNSUBSCRIBE",
        "Opt-out",
        "stop all",
        "alto",
        "\uff33\uff34\uff2f\uff30",
    ],
)
@pytest.mark.parametrize("channel", ["sms", "whatsapp"])
def test_to_be_left_alone(text: str, channel: str) -> None:
    assert wish(text, channel) is Wish.STOP


@pytest.mark.parametrize("text", ["start", "ALTA", "Unstop", "darse de alta"])
def test_to_be_written_to_again(text: str) -> None:
    assert wish(text, "sms") is Wish.START


@pytest.mark.parametrize("text", ["cancel", "END", "Cancelar", "fin", "quit", "revoke"])
def test_what_means_something_else_in_a_chat(text: str) -> None:
    assert wish(text, "sms") is Wish.STOP
    assert wish(text, "whatsapp") is None


@pytest.mark.parametrize(
    "text", ["", "please stop by at noon", "non stop", "no baja el precio", "stop" * 20, "sí", "👍", "st op", "stop it"]
)
def test_whatever_else_people_write(text: str) -> None:
    assert wish(text, "sms") is None
