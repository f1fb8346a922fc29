"""What a seed draws: the run file, the fleet, and what happens to them."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

__all__ = ["SCHEDULE_SECONDS", "DevicePlan", "Fault", "Plan", "draw"]

# Faults come for so long; then everything works again, and the run has to go on.
SCHEDULE_SECONDS = 45.0

# Seeds modulo 8 whose federations have something that all others do not: those stay what they have always been.
OVER_BAD_LINKS = (1, 6)
OF_TWO_RUNS = (5,)

HONEST = "honest"
LIES = ("nan", "huge", "samples", "shape", "stranger")

OPERATIONS = (
    "pause", "drain", "resume", "roll back", "rotate key", "revoke", "withdraw", "backup", "restore", "export", "token",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Fault:
    """
    Something that happens at ``at`` seconds.

    ``kind`` says what, ``whom`` to whom (empty: the coordinator), ``amount`` how much of it; ``seed`` draws its
    details.
    """

    at: float
    kind: str
    whom: str = ""
    amount: float = 0.0
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.kind} {self.whom} {self.amount:g} #{self.seed}"


@dataclasses.dataclass(frozen=True)
class DevicePlan:
    """
    A device: what it is like, and how long it trains.

    ``name`` is its own within its ``run``, ``place`` in the whole federation.
    """

    name: str
    persona: str
    budget: int
    samples: int
    seconds: float
    seed: int
    run: int = 0

    @property
    def place(self) -> str:
        """The name of its machine and of its link."""
        return f"{self.name}-of-{self.run}" if self.run else self.name


@dataclasses.dataclass(frozen=True)
class Plan:
    """
    A whole federation.

    ``sections`` are those of the run file, ``others`` those of the other runs that the same coordinator serves. Files
    travel in pieces of ``piece_bytes`` (0: whole, they are small).
    """

    seed: int
    sections: dict[str, dict[str, Any]]
    devices: tuple[DevicePlan, ...]
    faults: tuple[Fault, ...]
    hasty: bool
    hole: bool
    others: tuple[dict[str, dict[str, Any]], ...] = ()
    piece_bytes: int = 0
    gateways: int = 0
    database: bool = False

    def without(self, left_out: frozenset[int]) -> Plan:
        """The same, without some of the faults."""
        return dataclasses.replace(self, faults=tuple(f for i, f in enumerate(self.faults) if i not in left_out))


def draw(seed: int, *, gateways: bool = False, database: bool = False) -> Plan:
    """
    What a seed stands for.

    Args:
        seed: of everything.
        gateways: whether devices come to gateways, which have faults of their own; the rest is the same.
        database: whether two machines serve the run, whose state is in a database, with faults of their own.

    """
    rng = random.Random(f"federation {seed}")
    honest = rng.randint(3, 5)
    personas = [HONEST] * honest + [rng.choice(LIES) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    devices = tuple(
        DevicePlan(
            name=f"phone-{index}",
            persona=persona,
            budget=rng.choice((0, 0, 1_500)),
            samples=rng.randint(5, 60),
            seconds=rng.uniform(4.0, 15.0),
            seed=rng.getrandbits(32),
        )
        for index, persona in enumerate(personas)
    )
    sections = _sections(rng, honest)
    if sections["payload"]["update"].startswith("int"):  # no number cannot be packed in integers
        devices = tuple(dataclasses.replace(d, persona="huge" if d.persona == "nan" else d.persona) for d in devices)
    faults = _faults(rng, [device.name for device in devices])
    plan = Plan(seed, sections, devices, tuple(faults), hasty=rng.random() < 0.3, hole=rng.random() < 0.5)
    if seed % 8 in OVER_BAD_LINKS:
        plan = _over_bad_links(plan)
    if database:
        return _in_database(plan)
    if seed % 8 in OF_TWO_RUNS:
        plan = _with_another_run(plan)
    return _with_gateways(plan) if gateways else plan


def _over_bad_links(plan: Plan) -> Plan:
    """Files travel in pieces, and letters change from the first word on, while devices enrol."""
    rng = random.Random(f"bad links {plan.seed}")
    flips = [Fault(rng.uniform(0.01, 0.1), "link flip", each.place, 0.0, rng.getrandbits(32)) for each in plan.devices]
    return dataclasses.replace(
        plan, piece_bytes=rng.choice((64, 128, 256)), faults=tuple(_in_order([*flips, *plan.faults]))
    )


def _with_another_run(plan: Plan) -> Plan:
    """
    A second run, whose devices have the names of the first one's, and whose updates have the same numbers.

    It is a small one, with faults of its own beside those of the first.
    """
    rng = random.Random(f"another run {plan.seed}")
    honest = rng.randint(2, 3)
    sections = _sections(rng, honest) | {"server": plan.sections["server"]}
    devices = [
        DevicePlan(
            name=f"phone-{index}",
            persona=HONEST,
            budget=rng.choice((0, 0, 1_500)),
            samples=rng.randint(5, 60),
            seconds=rng.uniform(4.0, 15.0),
            seed=rng.getrandbits(32),
            run=1,
        )
        for index in range(honest)
    ]
    sections["merge"] |= {"buffer": 2, "rule": "holders"}
    for needs_many in ("least", "min_contributors", "hostile"):
        sections["merge"].pop(needs_many, None)
    sections["scheduling"]["repeat"] = True
    faults = [
        Fault(
            rng.uniform(0.5, SCHEDULE_SECONDS),
            rng.choice((*OPERATIONS, "link cut", "link flip", "device cut")),
            rng.choice(devices).place,
            float(rng.randint(1, 20)),
            rng.getrandbits(32),
        )
        for _ in range(rng.randint(1, 4))
    ]
    faults += [Fault(rng.uniform(0.4, each.at), "backup", each.whom) for each in faults if each.kind == "restore"]
    every = _in_order([*plan.faults, *faults])
    return dataclasses.replace(plan, others=(sections,), devices=(*plan.devices, *devices), faults=tuple(every))


# Of a state directory alone; and a key that is rotated has to be brought to the other machine by an operator.
_NOT_IN_DATABASES = ("rot", "backup", "restore", "rotate key")


def _in_database(plan: Plan) -> Plan:
    rng = random.Random(f"database {plan.seed}")
    faults = [
        Fault(
            rng.uniform(0.5, SCHEDULE_SECONDS),
            f"database {rng.choice(('lost before', 'lost before', 'lost after', 'lost after', 'takeover'))}",
            "",
            float(rng.choice((rng.randint(1, 12), rng.randint(1, 60)))),
            rng.getrandbits(32),
        )
        for _ in range(rng.randint(1, 6))
    ]
    kept = [fault for fault in plan.faults if fault.kind not in _NOT_IN_DATABASES]
    every = sorted((*kept, *faults), key=lambda fault: fault.at)
    return dataclasses.replace(plan, faults=tuple(every), database=True)


def _with_gateways(plan: Plan) -> Plan:
    rng = random.Random(f"gateways {plan.seed}")
    count = rng.randint(1, 3)
    faults = [
        Fault(
            rng.uniform(0.5, SCHEDULE_SECONDS),
            f"gateway {rng.choice(('kill', 'kill', 'cut', 'uneven', 'slow'))}",
            f"gateway-{rng.randrange(count)}",
            float(rng.choice((rng.randint(1, 12), rng.randint(1, 150)))),
            rng.getrandbits(32),
        )
        for _ in range(rng.randint(1, 5))
    ]
    every = sorted((*plan.faults, *faults), key=lambda fault: fault.at)
    return dataclasses.replace(plan, faults=tuple(every), gateways=count)


def _sections(rng: random.Random, honest: int) -> dict[str, dict[str, Any]]:
    buffer: int | str = rng.choice((2, 2, 3, 3, "auto"))
    rule = rng.choice(("holders",) * 5 + ("fixed-K", "median", "trimmed-mean", "centred-clipping"))
    merge: dict[str, Any] = {
        "buffer": buffer,
        "rule": rule,
        "flush_seconds": rng.choice((30.0, 60.0)),
        "defence": rng.random() < 0.5,
        "difference": rng.choice(("base", "base", "base", "current")),
    }
    if buffer == "auto":
        merge["least"] = rng.choice((2, 3))
    if rule in ("median", "trimmed-mean", "centred-clipping"):
        merge |= {"buffer": 3, "min_contributors": 3, "hostile": 1}
        merge.pop("least", None)
    elif rng.random() < 0.3:
        merge["min_contributors"] = 2
    if rng.random() < 0.2:
        merge["clip_norm"] = rng.choice((0.5, 5.0))
    if rng.random() < 0.15:
        merge["outlier_factor"] = 3.0
    if rng.random() < 0.15:
        merge["keep_updates"] = True
    optimiser = rng.choice(("sgd", "sgd", "sgd", "momentum", "adam"))
    if optimiser != "sgd":
        merge["optimiser"] = {"kind": optimiser}
        merge["learning_rate"] = 0.3
    policy = rng.choice(("polynomial", "polynomial", "constant", "hinge", "exponential", "age_variance", "distance"))
    merge["staleness"] = {"policy": policy}
    if rng.random() < 0.25:
        merge["staleness"]["maximum"] = rng.choice((8, 12))  # a slow device is to have a chance
    payload: dict[str, Any] = {
        "update": rng.choice(("float32", "float32", "float16", "int8", "int4")),
        "differences": rng.random() < 0.7,
    }
    if rng.random() < 0.2:
        payload["top_k"] = 0.25
    evaluation: dict[str, Any] = {"federated_devices": rng.choice((0, 0, 3)), "federated_every": 2}
    if rng.random() < 0.2:
        evaluation["guard"] = rng.choice((0.02, 0.2))
    scheduling: dict[str, Any] = {
        "retry_seconds": rng.choice((5.0, 20.0)),
        "deadline_seconds": rng.choice((60.0, 300.0)),
        "liveness_seconds": rng.choice((20.0, 60.0)),
        # With few devices, one that gave its work back could be the one that a merge needs.
        "repeat": merge.get("min_contributors", 1) > 1 or rng.random() < 0.8,
    }
    if rng.random() < 0.4:
        scheduling["concurrency"] = rng.choice((1, 2))
    return {
        "merge": merge,
        "payload": payload,
        "evaluation": evaluation,
        "scheduling": scheduling,
        "retention": {"versions": rng.choice((1, 2, 5, 20)), "held_days": rng.choice((0.0, 1.0))},
        "training": {"learning_rate": 0.1},
        "server": {"token": rng.choice(("", "campaign-enrolment-token")), "handshake_seconds": 20.0},
    }


def _faults(rng: random.Random, devices: list[str]) -> list[Fault]:
    faults = []
    tough = rng.random()
    for _ in range(rng.randint(2, 4 + int(tough * 10))):
        at = rng.uniform(0.5, SCHEDULE_SECONDS)
        device = rng.choice(devices)
        kind = rng.choices(
            ("cut", "kill", "disk", "link", "operator", "clock", "device cut", "device kill", "device disk", "away",
             "reinstall", "twin", "rot", "gone"),
            (6, 3, 3, 4, 6, 1, 3, 1, 1, 1, 0.5, 0.7, 0.4, 1.5),
        )[0]  # fmt: skip
        fault = Fault(at, kind, "", 0.0, rng.getrandbits(32))
        match kind:
            case "cut" | "kill":
                fault = dataclasses.replace(fault, amount=float(rng.choice((rng.randint(1, 12), rng.randint(1, 150)))))
            case "device cut" | "device kill":
                fault = dataclasses.replace(fault, whom=device, amount=float(rng.randint(1, 120)))
            case "disk":
                what = rng.choice(("full", "eio", "readonly", "slow"))
                fault = dataclasses.replace(fault, kind=f"disk {what}", amount=rng.uniform(1.0, 25.0))
            case "device disk":
                what = rng.choice(("full", "eio", "slow"))
                fault = dataclasses.replace(fault, kind=f"disk {what}", whom=device, amount=rng.uniform(1.0, 25.0))
            case "link":
                what = rng.choice(("cut", "cut", "silent", "slow", "flip"))
                fault = dataclasses.replace(fault, kind=f"link {what}", whom=device, amount=rng.uniform(1.0, 20.0))
            case "operator":
                fault = dataclasses.replace(fault, kind=rng.choice(OPERATIONS), whom=device)
                if fault.kind == "restore":
                    faults.append(Fault(rng.uniform(0.4, at), "backup"))
            case "clock":
                whom = rng.choice(("", device))
                amount = rng.choice((-1, 1)) * rng.choice((10.0, 3_600.0, 86_400.0))
                fault = dataclasses.replace(fault, whom=whom, amount=amount)
            case "away" | "reinstall" | "twin" | "gone":
                fault = dataclasses.replace(fault, whom=device, amount=rng.uniform(5.0, 60.0))
        faults.append(fault)
    return _in_order(faults)


def _in_order(faults: list[Fault]) -> list[Fault]:
    if any(fault.kind == "restore" for fault in faults):
        # By a clock that goes back nobody can say how long ago the backup was taken.
        faults = [fault for fault in faults if fault.kind != "clock" or fault.whom]
    return sorted(faults, key=lambda fault: fault.at)
