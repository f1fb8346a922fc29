"""Commands for a coordinator that runs: they talk to its admin API."""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from exporters.cli.progress import StageProgress
from exporters.cli.tables import Columns, print_rows
from mobile_sdk.durable_files import write_durably
from mobile_sdk.invite import Invite
from mobile_sdk.metrics import format_metrics
from mobile_sdk.sizes import format_bytes, format_count

from ..admin.client import AdminClient, find_admin_folder
from ..errors import CoordinatorError

__all__ = ["add_client_command", "add_operating_commands"]

Handler = Callable[[argparse.Namespace, Console, AdminClient], int]

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_operating_commands(commands: Any) -> None:
    """Register them."""
    runs = add_client_command(commands, "runs", "the runs that are served, and their life", _runs)
    runs.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=("list", "create", "start", "pause", "resume", "drain", "finish"),
        help="default: list",
    )
    runs.add_argument("target", nargs="?", metavar="RUN", help="the run's name; for create, a run file")

    devices = add_client_command(commands, "devices", "the devices of a run", _devices)
    devices.add_argument("action", nargs="?", default="list", choices=("list", "classes", "revoke", "withdraw"))
    devices.add_argument("device", nargs="?", help="for revoke (it may not come back) and withdraw (its data go)")
    devices.add_argument("--all", action="store_true", help="list also those that left and never contributed")
    _run_option(devices)

    tokens = add_client_command(commands, "tokens", "what devices enrol with", _tokens)
    tokens.add_argument("action", nargs="?", default="list", choices=("list", "create", "revoke"))
    tokens.add_argument("token", nargs="?", metavar="ID", help="for revoke")
    _token_options(tokens)
    _run_option(tokens)

    invite = add_client_command(commands, "invite", "a link and a QR code that let a device join", _invite)
    invite.add_argument("--url", help="the address that devices reach (default: public_url of the run file)")
    invite.add_argument("--svg", type=Path, metavar="FILE", help="write the QR code into a file, too")
    invite.add_argument("--page", action="store_true", help="an https link, which cameras open; needs TLS")
    invite.add_argument("--no-qr", action="store_true", help="print the link alone")
    _token_options(invite)
    _run_option(invite)

    versions = add_client_command(commands, "versions", "the versions of a run", _versions)
    _run_option(versions)

    rollback = add_client_command(commands, "rollback", "go on from an older version", _rollback)
    rollback.add_argument("version", type=int, metavar="VERSION")
    rollback.add_argument("--why", default="", help="for the audit log")
    _run_option(rollback)

    export = add_client_command(
        commands, "export-model", "a version's weights: .safetensors, .pt, or .pte for inference", _export
    )
    export.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="its ending says the format")
    export.add_argument("--version", dest="number", type=int, metavar="N", help="default: the best one")
    _run_option(export)

    rotate = add_client_command(commands, "rotate-key", "a new key for a run, signed by the old one", _rotate)
    _run_option(rotate)

    audit = add_client_command(commands, "audit", "who did what", _audit)
    _run_option(audit)

    add_client_command(commands, "metrics", "the numbers that Prometheus scrapes", _metrics)


def add_client_command(commands: Any, name: str, words: str, handler: Handler) -> argparse.ArgumentParser:
    """
    Register a command that talks to a running coordinator.

    Args:
        commands: what ``add_subparsers`` gave.
        name: of the command.
        words: what it does.
        handler: does it.

    Returns:
        Its parser, with ``--admin`` and ``--json``.

    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=words, description=f"{words[0].upper()}{words[1:]}."
    )
    parser.add_argument(
        "--admin",
        type=Path,
        metavar="DIR",
        help="the coordinator's admin folder (default: FTTE_ADMIN of the environment, or a .ftte here, below or above)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(
        handler=lambda options, console: handler(
            options, console, AdminClient(options.admin or find_admin_folder(Path.cwd()))
        )
    )
    return parser


def _run_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", metavar="NAME", help="which run; not needed where there is but one")


def _token_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--uses", type=_uses, default=1, metavar="N", help="devices that may enrol, or 'any' (default: 1)"
    )
    parser.add_argument(
        "--valid", type=_duration, metavar="TIME", help="how long, e.g. 90m, 12h or 7d (default: for ever)"
    )
    parser.add_argument("--note", default="", help="whom it is for")


def _uses(text: str) -> int | None:
    if text == "any":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of devices; give at least 1, or 'any'")
    return int(text)


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it like 90m, 12h or 7d")
    return float(match[1]) * UNITS[match[2]]


def _only(options: argparse.Namespace, client: AdminClient) -> str:
    """The run that is meant."""
    if options.run:
        return str(options.run)
    names = [run["name"] for run in client.get("runs")["runs"]]
    if len(names) != 1:
        raise CoordinatorError(f"name the run with --run: there are {', '.join(names) or 'none'}")
    return str(names[0])


def _needed(value: str | None, what: str) -> str:
    if not value:
        raise CoordinatorError(f"name the {what}")
    return value


def _show(
    options: argparse.Namespace, console: Console, data: Any, rows: Sequence[Mapping[str, Any]], columns: Columns
) -> int:
    if options.json:
        print(json.dumps(data, indent=2))
    else:
        print_rows(console, rows, columns)
    return 0


def _say(options: argparse.Namespace, words: str, **data: Any) -> int:
    """What was done: in words, or as JSON."""
    print(json.dumps(data, indent=2) if options.json else words)
    return 0


def _time(at: float | None) -> str:
    if at is None:
        return "-"
    try:
        return datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return "never"


def _is_past(at: float | None) -> bool:
    return at is not None and at < datetime.datetime.now().timestamp()


def _runs(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    if options.action == "list":
        data = client.get("runs")
        columns = {
            "run": lambda r: r["name"],
            "phase": lambda r: r["phase"],
            "version": lambda r: str(r["version"]),
            "best": lambda r: "-" if r["best"] is None else str(r["best"]),
            "metrics": lambda r: format_metrics(r["metrics"]),
            "buffer": lambda r: f"{r['buffered']} of {r['capacity']}{' (auto)' if r['adaptive'] else ''}",
            "staleness": lambda r: "-" if r["mean_staleness"] is None else f"{r['mean_staleness']:.1f}",
            "devices": lambda r: f"{r['connected']} of {r['devices']}",
            "working": lambda r: str(r["working"]),
            "waiting": lambda r: str(r["waiting"]),
            "": lambda r: "; ".join(filter(None, (r["waits_for"] and f"waits for {r['waits_for']}", r["notice"]))),
        }
        return _show(options, console, data, data["runs"], columns)
    if options.action == "create":
        file = _needed(options.target, "run file")
        run = client.post("runs", file=str(Path(file).absolute()))
    else:
        options.run = options.target
        run = client.post("runs", _only(options, client), options.action)
    words = f"the run {run['name']} is {run['phase']}"
    print(json.dumps(run, indent=2) if options.json else words)
    return 0


def _devices(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    run = _only(options, client)
    if options.action == "list":
        data = client.get("runs", run, "devices")
        columns = {
            "device": lambda d: d["id"],
            "state": lambda d: f"set aside: {d['set_aside']}" if d["set_aside"] else d["state"],
            "tier": lambda d: d["tier"] or "-",
            "updates": lambda d: str(d["updates"]),
            "share": lambda d: f"{d['contribution']:.0%}",
            "failures": lambda d: str(d["failures"]),
            "lost in a row": lambda d: str(d["lost"]),
            "self-check": lambda d: "failed" if d["self_check"] else "-",
            "up": lambda d: format_bytes(d["bytes_up"]),
            "down": lambda d: format_bytes(d["bytes_down"]),
            "last seen": lambda d: _time(d["last_seen"]),
        }
        shown = data if options.all else [device for device in data if not _came_to_nothing(device)]
        _show(options, console, data, shown, columns)
        if len(shown) < len(data) and not options.json:
            hidden = format_count(len(data) - len(shown), "device")
            words = f"{hidden} not shown, offline without an update so far: --all lists everything"
            console.print(words, highlight=False, soft_wrap=True)
        for device in () if options.json else data:
            if device["self_check"]:
                console.print(f"{device['id']} ({device['model']}): {device['self_check']}", markup=False)
        return 0
    if options.action == "classes":
        classes = client.get("runs", run)["classes"]
        columns = {
            "tier": lambda c: c["tier"],
            "pace": lambda c: c["pace"],
            "devices": lambda c: f"{c['devices']} ({c['share_of_devices']:.0%})",
            "updates": lambda c: f"{c['updates']} ({c['share_of_updates']:.0%})",
            "failures": lambda c: str(c["failures"]),
            "on their own data": lambda c: format_metrics(c["metrics"]),
        }
        return _show(options, console, classes, classes, columns)
    device = _needed(options.device, "device")
    if options.action == "revoke":
        client.post("runs", run, "devices", device, "revoke")
        return _say(options, f"{device} is revoked", device=device, revoked=True)
    else:
        stopped = client.delete("runs", run, "devices", device)["stopped_updates"]
        words = f"{device} and what was known of it are gone; {stopped} of its updates were stopped"
        return _say(options, words, device=device, withdrawn=True, stopped_updates=stopped)
    return 0


def _came_to_nothing(device: Mapping[str, Any]) -> bool:
    """Whether a device has left without an update or anything else to look at: a trial, or storage that was new."""
    remarks = device["set_aside"] or device["self_check"] or device["failures"] or device["lost"]
    return device["state"] == "offline" and device["updates"] == 0 and not remarks


def _tokens(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    run = _only(options, client)
    if options.action == "create":
        made = client.post("runs", run, "tokens", uses=options.uses, seconds=options.valid, note=options.note)
        print(json.dumps(made, indent=2) if options.json else made["token"])
        return 0
    if options.action == "revoke":
        token = _needed(options.token, "token's id")
        client.delete("runs", run, "tokens", token)
        return _say(options, f"nobody enrols with the token {token} any more", token=token, revoked=True)
    data = client.get("runs", run, "tokens")
    columns = {
        "id": lambda t: t["id"],
        "uses left": lambda t: "any" if t["uses_left"] is None else str(t["uses_left"]),
        "made": lambda t: _time(t["created_at"]),
        "good until": lambda t: _time(t["expires_at"]) + (" (expired)" if _is_past(t["expires_at"]) else ""),
        "revoked": lambda t: _time(t["revoked_at"]),
        "note": lambda t: t["note"],
    }
    return _show(options, console, data, data, columns)


def _invite(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    import segno

    body = {"uses": options.uses, "seconds": options.valid, "note": options.note, "url": options.url}
    made = client.post("runs", _only(options, client), "invite", **body)
    if options.json:
        print(json.dumps(made, indent=2))
        return 0
    link = Invite.parse(made["link"]).page if options.page else made["link"]
    code = segno.make(link, error="m", micro=False)
    if options.svg is not None:
        code.save(str(options.svg), scale=4)
    if not options.no_qr:
        code.terminal(compact=True)
    # One line, whatever the terminal's width: it is copied. A shell would take some of its characters for its own.
    print(link)
    if not options.no_qr:
        print(f"on a computer: ftte-device join {shlex.quote(link)} --data MODULE:CALLABLE")
    return 0


def _versions(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    data = client.get("runs", _only(options, client), "versions")

    def remarks(version: Mapping[str, Any]) -> str:
        words = [version["kind"]] if version["kind"] != "merge" else []
        words += ["best"] if version["best"] else []
        words += ["pruned"] if version["pruned"] else []
        words += [] if version["current_line"] else ["rolled back"]
        return ", ".join(words)

    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "version": lambda v: str(v["version"]),
        "parent": lambda v: "-" if v["parent"] < 0 else str(v["parent"]),
        "made": lambda v: _time(v["created_at"]),
        "metrics": lambda v: format_metrics(v["metrics"]),
        "": remarks,
    }
    return _show(options, console, data, data, columns)


def _rollback(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    made = client.post("runs", _only(options, client), "rollback", version=options.version, why=options.why)
    print(json.dumps(made, indent=2) if options.json else f"version {made['version']} repeats version {made['parent']}")
    return 0


def _export(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    formats = (".safetensors", ".pt", ".pte")
    if options.out.suffix not in formats:
        raise CoordinatorError(f"{options.out} must end in {', '.join(formats)}")
    run = _only(options, client)
    number, content = client.weights(run, options.number)
    if options.out.suffix != ".safetensors":
        with StageProgress(console, as_json=options.json) as progress:
            progress.say(f"importing torch, to make {options.out}")
            # torch is loaded here, in the operator's process, never in the coordinator's.
            from exporters.program.inference import inference_program, state_dict

            convert = state_dict if options.out.suffix == ".pt" else inference_program
            content = convert(client.get("runs", run)["task"], content)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_durably(options.out, content)
    words = f"version {number} is in {options.out} ({format_bytes(len(content))})"
    return _say(options, words, version=number, file=str(options.out), bytes=len(content))


def _rotate(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    key = client.post("runs", _only(options, client), "rotate-key")["key"]
    words = f"the run's key is {key} now; devices that pin an earlier one follow, new ones pin this one"
    return _say(options, words, key=key)


def _audit(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    data = client.get("runs", _only(options, client), "audit")
    columns = {
        "": lambda e: str(e["number"]),
        "when": lambda e: _time(e["at"]),
        "who": lambda e: e["actor"],
        "did": lambda e: e["action"],
        "to": lambda e: e["subject"],
        "details": lambda e: ", ".join(f"{name} {value}" for name, value in e["details"].items()),
    }
    return _show(options, console, data, data, columns)


def _metrics(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    text = client.text("metrics")
    print(json.dumps(_samples(text), indent=2) if options.json else text, end="\n" if options.json else "")
    return 0


def _samples(text: str) -> list[dict[str, Any]]:
    """Prometheus' text as JSON values: a name, labels and a value for each line that has one."""
    from prometheus_client.parser import text_string_to_metric_families

    return [
        {"name": sample.name, "labels": sample.labels, "value": sample.value}
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
