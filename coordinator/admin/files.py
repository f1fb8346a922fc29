"""The files by which operator and coordinator find each other, in the admin folder."""

from __future__ import annotations

__all__ = ["ADMIN_FOLDER", "LOCK_FILE", "OPERATOR_HEADER", "SOCKET_FILE", "TOKEN_FILE", "URL_FILE"]

# What it is called unless a run file says otherwise.
ADMIN_FOLDER = ".ftte"
TOKEN_FILE = "admin.token"
# Held by the coordinator that answers here.
LOCK_FILE = "admin.lock"
SOCKET_FILE = "admin.sock"
URL_FILE = "admin.url"

# Who asks; the token says that they may.
OPERATOR_HEADER = "X-FTTE-Operator"
