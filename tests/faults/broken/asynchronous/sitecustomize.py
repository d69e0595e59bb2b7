"""A build that commits without waiting for the disk: a 202 comes before what it promises is kept."""

from rewriting import rewrite

rewrite("config.settings", {'"synchronous_commit": "on"': '"synchronous_commit": "off"'})
