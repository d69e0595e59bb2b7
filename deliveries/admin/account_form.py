"""The form of an account: the fields that every account has, and the options that its provider declares.

Secrets are written here and never shown: an empty secret keeps the stored one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms

from channels.base import PACE, InvalidOption, Option, Provider
from channels.registry import UnknownProvider, provider_class
from deliveries.admin.base import Password, RowForm, TextInput
from deliveries.delivery.accounts import owner
from deliveries.models import Account
from deliveries.secrets import Unsealable, unseal
from deliveries.setting_up import configure

#: Set apart from the fields of the row, whose names an option may have.
PREFIX = "option_"


class AccountForm(RowForm):
    """The base; ``form_for`` adds the options of one provider."""

    #: Channel and provider of a new account.
    made_at: ClassVar[tuple[str, str]] = ("", "")
    provider_options: ClassVar[tuple[Option, ...]] = ()

    class Meta:
        model = Account
        fields = ("service", "name", "priority", "in_doubt_policy", "blind_retries")
        labels = {"in_doubt_policy": "When the answer never came", "blind_retries": "Blind repeats"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is None:
            self.instance.channel, self.instance.provider = self.made_at
        for option in self.provider_options:
            if option.secret and self.instance.pk is not None:
                self.fields[PREFIX + option.name].help_text += " Left empty, the stored one stays; it is never shown."
            if not option.secret:
                self.initial.setdefault(PREFIX + option.name, self.instance.options.get(option.name, ""))

    def clean(self) -> dict[str, Any]:
        """The options by the provider's own rules; what is wrong is said at its field."""
        given = super().clean() or {}
        self.instance.in_doubt_policy = given.get("in_doubt_policy", self.instance.in_doubt_policy)
        try:
            configure(self.instance, self._settings(given))
        except InvalidOption as error:
            known = [name for name in (PREFIX + error.name, error.name) if name in self.fields]
            self.add_error(known[0] if known else None, f"{error.reason}.")
        except UnknownProvider as error:
            self.add_error(None, f"{error}.")
        except Unsealable as error:
            self.add_error(None, f"{error}. Give all of them again.")
        return given

    def _settings(self, given: dict[str, Any]) -> dict[str, str]:
        """What was filled in, and the stored secrets for those that were left empty."""
        filled = {option.name: given.get(PREFIX + option.name, "") for option in self.provider_options}
        empty = [option.name for option in self.provider_options if option.secret and not filled[option.name]]
        kept = unseal(owner(self.instance.public_id), bytes(self.instance.secrets)) if empty else {}
        filled |= {name: kept.get(name, "") for name in empty}
        return {name: value for name, value in filled.items() if value}


def form_for(channel: str, provider: str) -> type[AccountForm]:
    """The form for accounts of ``provider`` on ``channel``. Without options where the provider is not known."""
    try:
        options = (*provider_class(channel, provider).options, *PACE)
    except UnknownProvider:
        options = ()
    fields: dict[str, Any] = {PREFIX + option.name: _field(option) for option in options}
    return type("AccountForm", (AccountForm,), {"made_at": (channel, provider), "provider_options": options, **fields})


def _field(option: Option) -> forms.CharField:
    label = option.name.replace("_", " ").capitalize()
    words = f"{option.help[:1].upper()}{option.help[1:]}." + (" It is needed." if option.required else "")
    words += f" If left empty: {option.default}." if option.default else ""
    hidden = Password({"autocomplete": "new-password"}) if option.secret else TextInput()
    return forms.CharField(label=label, required=False, help_text=words, widget=hidden, max_length=4096)


def is_there(channel: str, provider: str) -> type[Provider] | None:
    """The provider that an account may be made at; None for words that name none."""
    try:
        return provider_class(channel, provider)
    except UnknownProvider:
        return None
