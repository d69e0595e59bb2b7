"""Acts on messages from the admin: one from its page, many from the list. Each asks for a reason and is audited.

Everything goes through ``deliveries.acts``, which decides whether the act is still possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages as notices
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from deliveries import acts
from deliveries.admin.base import AdminBase, actor
from deliveries.models import Message

REFUSED = (acts.NotCancelable, acts.NotRedeliverable, acts.NotInDoubt)
#: As many as a page of the list holds; more is for `manage.py redeliver`, which rehearses and paces itself.
AT_ONCE = 50


class Reason(forms.Form):
    """Why: kept with the act in the audit and shown in the message's timeline."""

    reason = forms.CharField(max_length=500, strip=True)


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that can be done to a message. ``asks`` stands above its reason, ``done`` completes "it is ..."."""

    verb: str
    title: str
    asks: str
    done: str
    run: Callable[[Message, str, str], None]


def _redeliver(message: Message, by: str, reason: str) -> None:
    acts.redeliver(message, actor=by, reason=reason)


def _cancel(message: Message, by: str, reason: str) -> None:
    acts.cancel(message, actor=by, reason=reason)


def _resolve(verdict: str) -> Callable[[Message, str, str], None]:
    def run(message: Message, by: str, reason: str) -> None:
        acts.resolve(message, verdict, actor=by, reason=reason)

    return run


_RECORDS = "What do the provider's own records say?"
ACTS = {
    act.verb: act
    for act in (
        Act("redeliver", "Redeliver", "Send it again, with a new deadline", "queued again", _redeliver),
        Act("cancel", "Cancel", "Withdraw it while it still waits", "canceled", _cancel),
        Act("resolve_sent", "It was sent", _RECORDS, "resolved as sent", _resolve("sent")),
        Act("resolve_failed", "It was not sent", _RECORDS, "resolved as failed", _resolve("failed")),
        Act("resolve_retry", "Send it again", _RECORDS, "resolved by sending it again", _resolve("retry")),
    )
}


def act_on_one(request: HttpRequest, message: Message) -> None:
    """Do what the posted form asks for, and tell the person what became of it."""
    act, form = ACTS.get(request.POST.get("act", "")), Reason(request.POST)
    if act is None:
        notices.error(request, f"There is no such act; there are {', '.join(ACTS)}.")
    elif not form.is_valid():
        notices.error(request, "Nothing was done: give a reason of at most 500 characters. It is kept with the act.")
    else:
        try:
            act.run(message, actor(request), form.cleaned_data["reason"])
            notices.success(request, f"The message is {act.done}.")
        except REFUSED as refusal:
            notices.error(request, f"Nothing was done to the message: {refusal}.")


def act_on_many(admin: AdminBase, request: HttpRequest, act: Act) -> HttpResponse | None:
    """The step that asks for the reason, and then the acts, each in its own transaction."""
    chosen = _chosen(request)
    if len(chosen) > AT_ONCE or request.POST.get("select_across") == "1":
        notices.error(request, f"Nothing was done: choose at most {AT_ONCE}. `manage.py redeliver` takes more.")
        return None
    form = Reason(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        context = admin.page_context(request, f"{act.title} {len(chosen)} messages", act=act, form=form, chosen=chosen)
        context["action"] = request.POST["action"]
        return TemplateResponse(request, "admin/chaski/bulk.html", context)
    _report(request, act, _run_all(act, chosen, actor(request), form.cleaned_data["reason"]))
    return HttpResponseRedirect(request.get_full_path())


def _chosen(request: HttpRequest) -> list[Message]:
    ids = []
    for given in request.POST.getlist(ACTION_CHECKBOX_NAME):
        try:
            ids.append(UUID(given))
        except ValueError:
            continue
    return list(Message.objects.filter(pk__in=ids[: AT_ONCE + 1]).defer("content", "options", "metadata"))


def _run_all(act: Act, chosen: Iterable[Message], by: str, reason: str) -> Counter[str]:
    told: Counter[str] = Counter()
    for message in chosen:
        try:
            act.run(message, by, reason)
            told[""] += 1
        except REFUSED as refusal:
            told[str(refusal)] += 1
    return told


def _report(request: HttpRequest, act: Act, told: Counter[str]) -> None:
    done = told.pop("", 0)
    if done:
        notices.success(request, f"{done} {'message is' if done == 1 else 'messages are'} {act.done}.")
    for refusal, times in told.most_common(5):
        notices.error(request, f"{times} left as {'it was' if times == 1 else 'they were'}: {refusal}.")


def action(verb: str, description: str) -> Any:
    """The list's action that does ``verb``, for those who may act on messages."""

    def run(admin: AdminBase, request: HttpRequest, _queryset: Any) -> HttpResponse | None:
        return act_on_many(admin, request, ACTS[verb])

    run.__name__ = f"{verb}_selected"
    run.short_description = description  # type: ignore[attr-defined]
    run.allowed_permissions = ["act"]  # type: ignore[attr-defined]
    return run
