"""The run file of a trial: small updates, kept so that another program can merge them anew."""

from __future__ import annotations

__all__ = ["RUN_FILE"]

RUN_FILE = """\
[run]
name = "digits"
task = "exporters.zoo.digits:task"
state = "{state}"
[server]
port = {port}
handshakes = 1000
handshakes_per_address = 1000
[admin]
folder = "{admin}"
[budgets]
small = "1MB"
large = "5MB"
[training]
steps = 4
learning_rate = 0.05
[payload]
update = "{update}"
[merge]
buffer = {buffer}
flush_seconds = 5
min_contributors = 1
keep_updates = true
[retention]
versions = 5
held_days = 0
[scheduling]
deadline_seconds = 60
"""
