"""Which HTTP proxy leads to a coordinator: the argument's, or that of the environment."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from .loopback import is_loopback

__all__ = ["check_proxy", "environment_proxy", "shown_proxy"]

# Which variables (``https_proxy`` and so on) hold the proxy: the first that is set, in the WebSocket library's order.
_VARIABLES = {"wss": ("wss", "socks", "https"), "ws": ("ws", "socks", "https", "http")}
_SCHEMES = ("http", "https", "socks5", "socks5h", "socks4", "socks4a")


def check_proxy(proxy: str) -> None:
    """
    Check an address that an app or a user gives.

    Raises:
        ValueError: if it is no address of a proxy.

    """
    problem = _problem(proxy)
    if problem:
        raise ValueError(f"the proxy {shown_proxy(proxy)!r} {problem}")


def environment_proxy(url: str) -> tuple[str | None, str]:
    """
    The proxy that the environment names for a coordinator, and what is wrong with it, if anything.

    This machine is never reached through a proxy, nor is what ``no_proxy`` names.

    Args:
        url: of the coordinator, ``ws://`` or ``wss://``.

    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(f"{host}:{parts.port or _port(parts)}"):
        return None, ""
    proxies = getproxies()
    for variable in _VARIABLES[parts.scheme]:
        if proxies.get(variable):
            proxy = proxies[variable]
            problem = _problem(proxy)
            return proxy, f"{variable}_proxy of the environment {problem}" if problem else ""
    return None, ""


def shown_proxy(proxy: str) -> str:
    """The proxy's address without its password, for messages."""
    credentials, at, rest = proxy.rpartition("@")
    scheme, separator, _ = credentials.partition("://")
    return f"{scheme if separator else ''}{separator}...@{rest}" if at else proxy


def _problem(proxy: str) -> str:
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    return "" if usable else "is no address of a proxy: write it like http://proxy.example:3128"


def _port(parts: SplitResult) -> int:
    return 443 if parts.scheme == "wss" else 80
