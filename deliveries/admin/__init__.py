"""The admin: where support finds messages and operators act on them, on django-unfold. Loaded by Django's autodiscover."""

from django.contrib import admin

from deliveries.admin import accounts, control, groups, messages, people, records, services

__all__ = ["accounts", "control", "groups", "messages", "people", "records", "services"]

admin.site.index_title = "What is going on"
admin.site.index_template = "admin/chaski/index.html"
