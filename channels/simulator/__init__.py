"""The provider simulator: speaks each provider's wire, with faults chosen by recipient or by seed.

Run by `manage.py simulator`; driven by tests. It is no provider: the registry passes packages over.
"""
