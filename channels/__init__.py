"""Providers: one file each, bytes out and receipts in, no database."""
