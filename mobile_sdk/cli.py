"""``ftte-device``: one device in one run, as a process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .client import Client
from .data import load_dataset
from .engines import default_engine, load_engine
from .engines.base import Engine
from .engines.paced import PacedEngine
from .errors import FtteError
from .events import (
    Announced,
    Assigned,
    Connected,
    Declined,
    Disconnected,
    Evaluating,
    Event,
    Merged,
    Paused,
    Postponed,
    RunFinished,
    SamplesSkipped,
    Training,
    UpdateAccepted,
    UpdateRejected,
    Waiting,
)
from .invite import Invite
from .manifest import ENGINE_FILES
from .metrics import format_metrics
from .net.connection import Transport
from .participation.surroundings import Surroundings
from .participation.visit import Listener
from .policy.rules import Policy
from .process import torch_loaded
from .protocol.messages import PROTOCOL_VERSION
from .sizes import format_bytes, parse_bytes
from .system.memory import peak_rss_bytes
from .system.os_errors import describe_os_error
from .system.signals import call_when_told_to_end
from .version import __version__

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 when the run has ended, 1 on an error, 2 on wrong usage."""
    options = _parser().parse_args(arguments)
    # Data modules are looked up like those of `python -m`: from the folder where the user is.
    sys.path.insert(0, str(Path.cwd()))
    try:
        return asyncio.run(_join(options))
    except (FtteError, ValueError) as error:
        print(f"ftte-device: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"ftte-device: {describe_os_error(error)}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftte-device", description="Take part in a federated training run.")
    parser.add_argument(
        "--version", action="version", version=f"ftte-device {__version__} (protocol {PROTOCOL_VERSION})"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    join = commands.add_parser("join", help="join a run and train until it has ended")
    join.add_argument(
        "url",
        metavar="URL",
        help="the coordinator, e.g. ws://127.0.0.1:8765 or wss://example.org:8765; or an ftte://join?... link",
    )
    join.add_argument("--run", default="", metavar="NAME", help="name of the run; a link knows it")
    join.add_argument(
        "--key", default="", metavar="FINGERPRINT", help="the run's public key, 64 hex digits; a link knows it"
    )
    join.add_argument(
        "--data", required=True, metavar="SOURCE", help="package.module:callable, with literal arguments, or FILE.npz"
    )
    join.add_argument(
        "--storage",
        type=Path,
        metavar="DIR",
        help="this device's own folder (default: ~/.local/share/ftte-device/NAME)",
    )
    join.add_argument("--name", default="", help="what to call this device when it joins for the first time")
    join.add_argument("--budget", type=parse_bytes, default=0, metavar="SIZE", help="memory for training, e.g. 2MB")
    join.add_argument(
        "--token",
        default=os.environ.get("FTTE_TOKEN", ""),
        help="enrolment token (default: FTTE_TOKEN of the environment)",
    )
    join.add_argument(
        "--engine",
        choices=sorted(ENGINE_FILES),
        default=default_engine(),
        help="what runs programs (default on this system: %(default)s)",
    )
    join.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the native engine (default: 1)")
    join.add_argument(
        "--step-time",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="a step takes at least this long: a slower phone",
    )
    join.add_argument("--certificates", type=Path, metavar="FILE", help="PEM file of the authorities to trust")
    join.add_argument("--proxy", metavar="URL", help="HTTP proxy (default: https_proxy of the environment)")
    join.add_argument("--insecure", action="store_true", help="allow ws:// to another machine")
    policy = join.add_argument_group("policy", "train only while all that is given here holds")
    policy.add_argument("--charging", action="store_true", help="on external power")
    policy.add_argument("--battery-above", type=float, default=0.0, metavar="SHARE", help="with more charge, e.g. 0.3")
    policy.add_argument("--unmetered", action="store_true", help="on a network that costs nothing by the byte")
    policy.add_argument("--idle", action="store_true", help="while nobody uses the machine")
    policy.add_argument("--hours", metavar="FROM-TO", help="in this window of local time, e.g. 22:00-06:00")
    policy.add_argument("--bytes-per-day", type=parse_bytes, metavar="SIZE", help="with at most this moved, e.g. 50MB")
    policy.add_argument("--one-at-a-time", action="store_true", help="while no other device process here trains")
    join.add_argument(
        "--traces",
        metavar="URL",
        help="send OpenTelemetry spans of every assignment to this collector, e.g. http://127.0.0.1:4318",
    )
    join.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


async def _join(options: argparse.Namespace) -> int:
    invite = _invite(options)
    storage = options.storage or Path.home() / ".local" / "share" / "ftte-device" / invite.run

    def load(folder: Path) -> Engine:
        engine = load_engine(folder, options.engine, threads=options.threads)
        return PacedEngine(engine, options.step_time) if options.step_time > 0 else engine

    client = Client(
        invite.url,
        run=invite.run,
        key=invite.key,
        dataset=load_dataset(options.data),
        storage=storage,
        name=options.name,
        token=invite.token,
        budget=options.budget,
        transport=Transport(
            insecure=options.insecure,
            certificates=options.certificates,
            certificate=invite.certificate,
            proxy=options.proxy,
        ),
        engine=options.engine,
        policy=_policy(options),
        surroundings=Surroundings(load=load),
    )
    show: Listener = (lambda event: None) if options.quiet else _Printer()
    with contextlib.closing(client), _traced(options.traces, client.device, show) as listener:
        running = asyncio.create_task(client.run(listener))
        call_when_told_to_end(asyncio.get_running_loop(), running.cancel)
        await running
    return 0


@contextlib.contextmanager
def _traced(url: str | None, device: str, then: Listener) -> Iterator[Listener]:
    """A listener that also traces trips, if there is a collector's address."""
    if url is None:
        yield then
        return
    try:
        from .tracing.provider import open_provider
        from .tracing.trip_spans import TripSpans
    except ImportError as error:
        raise ValueError(
            f"--traces needs OpenTelemetry ({error}): pip install 'ftte-mobile-sdk[opentelemetry]'"
        ) from error
    provider = open_provider(f"ftte-device {device}", url=url)
    spans = TripSpans(provider, then)
    try:
        yield spans
    finally:
        spans.close()
        provider.shutdown()


def _policy(options: argparse.Namespace) -> Policy | None:
    """What the options demand; none if they demand nothing."""
    policy = Policy(
        charging=options.charging,
        battery_above=options.battery_above,
        unmetered=options.unmetered,
        idle=options.idle,
        hours=_hours(options.hours) if options.hours else None,
        bytes_per_day=options.bytes_per_day,
        one_at_a_time=options.one_at_a_time,
    )
    return None if policy == Policy(one_at_a_time=False) else policy


def _hours(text: str) -> tuple[str, str]:
    begin, _, end = text.partition("-")
    return begin, end


def _invite(options: argparse.Namespace) -> Invite:
    """What a link says, or the options in its place."""
    if not options.url.startswith("ftte:"):
        return Invite(options.url, options.run, options.key, options.token)
    invite = Invite.parse(options.url)
    return dataclasses.replace(invite, token=options.token) if options.token else invite


class _Printer:
    """Prints what a person wants to know: a line per event, of training at most one a second."""

    def __init__(self) -> None:
        self._printed = 0.0

    def __call__(self, event: Event) -> None:
        line = self._line(event)
        if line:
            print(line, flush=True)

    def _line(self, event: Event) -> str:
        match event:
            case Connected():
                return f"connected as {event.device}; the newest version is {event.version}"
            case Assigned():
                return f"{event.assignment}: train from version {event.version}"
            case Training() if time.monotonic() - self._printed >= 1 or event.step == event.steps:
                self._printed = time.monotonic()
                return f"  step {event.step} of {event.steps}, loss {event.loss:.4f}"
            case UpdateAccepted():
                moved = format_bytes(event.cost.bytes_up + event.cost.bytes_down)
                return (
                    f"{event.assignment}: accepted, staleness {event.staleness} "
                    f"({event.cost.cpu_seconds:.2f} CPU seconds, {moved} moved, "
                    f"estimated {event.cost.energy_joules_estimate:.1f} J)"
                )
            case Merged():
                return f"{event.assignment}: merged in version {event.version} with the weight {event.weight:.2f}"
            case Paused():
                return f"paused: {event.reason}"
            case UpdateRejected():
                return f"{event.assignment}: refused: {event.reason}"
            case SamplesSkipped():
                return f"{len(event.indices)} of {event.used + len(event.indices)} samples are left out: {event.reason}"
            case Declined():
                return f"{event.assignment}: given back: {event.reason}"
            case Announced():
                return f"version {event.version}: {format_metrics(event.metrics)}"
            case Disconnected():
                return f"{event.reason}; trying again in {event.retry_seconds:.1f} s"
            case Postponed():
                return f"{event.reason}; coming back in {event.seconds:.1f} s"
            case Waiting():
                return f"waiting for {event.reason}"
            case Evaluating():
                return f"{event.evaluation}: evaluating version {event.version}"
            case RunFinished():
                peak = format_bytes(peak_rss_bytes())
                return (
                    f"the run has ended at version {event.version}: {event.reason} ({format_metrics(event.metrics)}); "
                    f"peak memory of this process {peak}, torch {'loaded' if torch_loaded() else 'not loaded'}"
                )
            case _:
                return ""
