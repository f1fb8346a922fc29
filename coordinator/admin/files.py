"""The files by which operator and coordinator find each other, in the admin folder."""

from __future__ import annotations

__all__ = ["OPERATOR_HEADER", "SOCKET_FILE", "TOKEN_FILE", "URL_FILE"]

TOKEN_FILE = "admin.token"
SOCKET_FILE = "admin.sock"
URL_FILE = "admin.url"

# Who asks; the token says that they may.
OPERATOR_HEADER = "X-FTTE-Operator"
