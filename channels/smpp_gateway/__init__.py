"""The SMPP gateway: one process holds the binds of all SMPP accounts, and speaks HTTP with the rest of Chaski."""
