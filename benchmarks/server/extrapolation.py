"""
What ten million devices would need, on paper: ``python -m benchmarks.server.extrapolation``.

Nothing here was run at that size. Each figure follows from the assumptions that are listed with it: how devices behave
and what machines cost is assumed; what a connection, an update and a row take was measured with the benchmarks beside
this file. Change one with ``--set devices=1000000``. Prints Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence

__all__ = ["ASSUMPTIONS", "Assumption", "extrapolate", "markdown"]

DAY_SECONDS = 86_400.0
HOURS_A_MONTH = 730.0


@dataclasses.dataclass(frozen=True)
class Assumption:
    """One number: its name, value and unit, and where it comes from."""

    name: str
    value: float
    unit: str
    source: str


ASSUMPTIONS = (
    Assumption("devices", 10_000_000, "", "the question"),
    Assumption("trips_per_day", 1, "per device", "assumed: one night on a charger and Wi-Fi"),
    Assumption("connected_minutes", 10, "per trip", "assumed: waiting, download, training, upload"),
    Assumption("peak", 4, "times the mean", "assumed: nights of few time zones"),
    Assumption("update_kilobytes", 10, "KB", "assumed: int8, a part of a small model"),
    Assumption("download_kilobytes", 100, "KB per trip", "assumed: a version as a difference, no program"),
    Assumption("connection_kilobytes", 21, "KB at a gateway", "`benchmarks.server.idle`, without TLS"),
    Assumption("tls_kilobytes", 60, "KB more with TLS", "assumed; not measured"),
    Assumption(
        "visit_milliseconds", 4.5, "of a processor, gateway", "`benchmarks.server.idle`: a connection proves itself"
    ),
    Assumption("tls_milliseconds", 1.0, "of a processor per visit", "assumed; not measured"),
    Assumption("gateway_milliseconds", 0.70, "of a processor per update", "`benchmarks.server.scale`, two gateways"),
    Assumption("conductor_milliseconds", 0.77, "of a processor per update", "`benchmarks.server.scale`, two gateways"),
    Assumption(
        "durable_updates", 1_828, "per second in one group", "`benchmarks.server.store`, PostgreSQL, two busy cores"
    ),
    Assumption("busy", 0.6, "of a processor", "assumed: how far one is loaded at the peak"),
    Assumption("device_bytes", 520, "per device", "`benchmarks.server.row_bytes`"),
    Assumption("update_bytes", 576, "per merged update", "`benchmarks.server.row_bytes`"),
    Assumption("assignment_bytes", 289, "per assignment", "`benchmarks.server.row_bytes`"),
    Assumption("log_bytes", 13_251, "of write-ahead log per update", "`benchmarks.server.row_bytes`"),
    Assumption("kept_days", 30, "days", "assumed: how long rows of updates are kept"),
    Assumption("processor_price", 0.04, "$ an hour", "assumed: a virtual processor in a public cloud"),
    Assumption("memory_price", 0.005, "$ a GB and hour", "assumed"),
    Assumption("disk_price", 0.12, "$ a GB and month", "assumed: replicated SSD"),
    Assumption("traffic_price", 0.05, "$ a GB sent", "assumed; what arrives is free"),
)


def extrapolate(values: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """
    What is needed.

    Args:
        values: of the assumptions, by name.

    Returns:
        What, at the mean, and at the peak.

    """
    v = values
    updates = v["devices"] * v["trips_per_day"] / DAY_SECONDS
    open_connections = updates * 60 * v["connected_minutes"]
    memory = (v["connection_kilobytes"] + v["tls_kilobytes"]) / 1e6
    visit = v["visit_milliseconds"] + v["tls_milliseconds"] + v["gateway_milliseconds"]

    def processors(rate: float, milliseconds: float) -> float:
        return rate * milliseconds / 1e3 / v["busy"]

    rows: list[tuple[str, str, str]] = []

    def row(what: str, mean: float, peak: float | None = None, digits: int = 0) -> None:
        rows.append((what, f"{mean:,.{digits}f}", "" if peak is None else f"{peak:,.{digits}f}"))

    peak = v["peak"]
    row("updates a second", updates, updates * peak)
    row("open connections", open_connections, open_connections * peak)
    row("memory of gateways, GB", open_connections * memory, open_connections * memory * peak, 1)
    row("the same if every device stayed connected, GB", v["devices"] * memory)
    row("processors of gateways", processors(updates, visit), processors(updates * peak, visit), 1)
    conductor = v["conductor_milliseconds"]
    row("processors of the conductor", processors(updates, conductor), processors(updates * peak, conductor), 2)
    row(
        "of what PostgreSQL wrote durably, %",
        100 * updates / v["durable_updates"],
        100 * updates * peak / v["durable_updates"],
    )
    a_day = v["devices"] * v["trips_per_day"]
    devices_gb = v["devices"] * v["device_bytes"] / 1e9
    kept = v["update_bytes"] + v["assignment_bytes"]
    database = devices_gb + a_day * v["kept_days"] * kept / 1e9
    row("rows in the database, GB", database)
    row("write-ahead log, GB a day", a_day * v["log_bytes"] / 1e9)
    arrives, sent = a_day * v["update_kilobytes"] / 1e6, a_day * v["download_kilobytes"] / 1e6
    row("bytes that arrive, GB a day", arrives)
    row("bytes that are sent, GB a day", sent)
    # What is paid for is the peak, all day, with as much again for the database and its standby.
    count = math.ceil(processors(updates * peak, visit)) + 2 * math.ceil(processors(updates * peak, conductor)) + 16
    machines = HOURS_A_MONTH * (
        count * v["processor_price"] + (open_connections * memory * peak + 64) * v["memory_price"]
    )
    disks = 2 * (database + a_day * v["log_bytes"] / 1e9) * v["disk_price"]
    traffic = 30 * sent * v["traffic_price"]
    row("machines, $ a month", machines)
    row("disks, $ a month", disks)
    row("traffic, $ a month", traffic)
    row("$ a month in all", machines + disks + traffic)
    limit = v["busy"] * 1e3 / conductor / peak * DAY_SECONDS / v["trips_per_day"]
    row("devices of one run, where its conductor is full", limit)
    return rows


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,g}"


def markdown(assumptions: Sequence[Assumption]) -> str:
    """Both tables."""
    lines = ["| assumption | value | from |", "|---|---|---|"]
    lines += [f"| `{a.name}` | {_number(a.value)} {a.unit} | {a.source} |".replace("  ", " ") for a in assumptions]
    lines += ["", "| needed | mean | at the peak |", "|---|---:|---:|"]
    lines += [
        f"| {what} | {mean} | {peak} |" for what, mean, peak in extrapolate({a.name: a.value for a in assumptions})
    ]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What ten million devices would need, on paper.")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another assumption")
    changed = dict(text.split("=", 1) for text in parser.parse_args().set)
    if unknown := changed.keys() - {a.name for a in ASSUMPTIONS}:
        parser.error(f"there is no assumption {', '.join(sorted(unknown))}")
    print(
        markdown(
            [
                dataclasses.replace(a, value=float(changed[a.name]), source="--set") if a.name in changed else a
                for a in ASSUMPTIONS
            ]
        )
    )


if __name__ == "__main__":
    main()
