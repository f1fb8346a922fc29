"""
What gateways and conductors say to each other, field by field.

Each message is a JSON object whose ``m`` names its kind. A question has an ``id``; its answer, of the kind ``re:KIND``,
has that as ``re``. What comes is read strictly: a field that is missing, unknown, of another type or beyond its limit
makes it no message, and ends the connection. Sizes are bounded before anything is read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

__all__ = ["CONDUCTOR", "GATEWAY", "RELEASE", "Reader"]

# Both sides are of one release: this number is another wherever a message has changed.
RELEASE = 4

# A gateway says nothing long. A conductor says all versions of a run at once, and the steps of every parameter.
GATEWAY_TEXT_BYTES = 1_000_000
CONDUCTOR_TEXT_BYTES = 128_000_000

# Pieces of a file.
PIECE_BYTES = 1_000_000

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$", max_length=8_192)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Text = Annotated[str, Field(max_length=4_096)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Metrics = Annotated[dict[Annotated[str, Field(max_length=256)], float], Field(max_length=1_000)]
_Moved = tuple[_Count, _Count]
_Table = dict[str, Any]

_strict = with_config(ConfigDict(strict=True, extra="forbid"))


# Parts of messages.


@_strict
class _File(TypedDict):
    sha256: _Sha256
    size: _Count
    encoding: Literal["identity", "zlib", "zlib-words", "zlib-integers"]


@_strict
class _Assignment(TypedDict):
    number: _Count
    device: _Name
    version: _Count
    tier: Annotated[str, Field(max_length=256)]
    issued_at: float
    open: bool
    deadline: float | None


@_strict
class _Update(TypedDict):
    assignment: _Name
    device: _Name
    sha256: _Sha256
    report: _Table


@_strict
class _Ready(TypedDict):
    budget: _Count
    samples: _Count
    engine: _Name
    executorch: _Text
    serial: _Count
    peak_rss_bytes: _Count
    torch_loaded: bool
    model: _Text
    holds: Annotated[tuple[_Sha256, ...], Field(max_length=2_000)]


@_strict
class _Tier(TypedDict):
    name: Annotated[str, Field(max_length=256)]
    serial: _Count
    budget_bytes: _Count
    manifest: _File
    signature: _Hex
    program: _File
    graph: _File | None


@_strict
class _Version(TypedDict):
    version: _Count
    parent: Annotated[int, Field(ge=-1, lt=2**63)]
    kind: Literal["initial", "merge", "rollback"]
    metrics: _Metrics
    at: float
    sent: Annotated[list[_File], Field(max_length=1_000)]
    present: _Count


@_strict
class _Finished(TypedDict):
    version: _Count
    reason: _Text
    metrics: _Metrics


@_strict
class _Step(TypedDict):
    key: _Hex
    signature: _Hex


@_strict
class _Key(TypedDict):
    public: _Hex
    succession: Annotated[list[_Step], Field(max_length=10_000)]


@_strict
class _Device(TypedDict):
    id: _Name
    revoked_at: float | None


# What a gateway says.


@_strict
class _Hello(TypedDict):
    m: Literal["hello"]
    release: int
    process: _Count
    machine: _Text


@_strict
class _Cancel(TypedDict):
    m: Literal["cancel"]
    of: _Count


@_strict
class _Connections(TypedDict):
    m: Literal["connections"]
    id: _Count
    open: _Count
    unproven: _Count
    shed: _Count
    cut: _Count
    cpu_seconds: _Seconds


class _OfRun(TypedDict):
    r: _Name


class _OfDevice(_OfRun):
    device: _Name


class _OfConnection(_OfDevice):
    n: _Count


@_strict
class _Ask(_OfDevice):
    m: Literal["ask"]
    ready: _Ready
    moved: _Moved


@_strict
class _Ended(_OfDevice):
    m: Literal["ended"]


@_strict
class _Left(_OfConnection):
    m: Literal["left"]
    moved: _Moved


@_strict
class _Evaluated(_OfDevice):
    m: Literal["evaluated"]
    evaluation: _Name
    tier: Annotated[str, Field(max_length=256)]
    samples: _Count
    metrics: _Metrics


@_strict
class _EvaluationLost(_OfDevice):
    m: Literal["evaluation_lost"]


@_strict
class _SelfCheckFailure(_OfRun):
    m: Literal["self_check_failure"]


@_strict
class _Accept(_OfRun):
    m: Literal["accept"]
    id: _Count
    record: _Update
    moved: _Moved


@_strict
class _Open(_OfConnection):
    m: Literal["open"]
    id: _Count
    secret: _Hex


@_strict
class _AboutDevice(_OfDevice):
    m: Literal["room", "secret", "device", "add_failure"]
    id: _Count


@_strict
class _Enrol(_OfDevice):
    m: Literal["enrol"]
    id: _Count
    secret: _Hex
    token: _Sha256 | None


@_strict
class _AboutAssignment(_OfRun):
    m: Literal["assignment", "close_assignment", "is_accepted"]
    id: _Count
    assignment: _Name


@_strict
class _VersionRecord(_OfRun):
    m: Literal["version_record"]
    id: _Count
    version: _Count


@_strict
class _Artifact(_OfRun):
    m: Literal["artifact"]
    id: _Count
    sha256: _Sha256
    verify: bool


@_strict
class _Piece(_OfRun):
    m: Literal["piece"]
    id: _Count
    sha256: _Sha256
    offset: _Count


@_strict
class _KeepPart(_OfDevice):
    m: Literal["keep_part"]
    id: _Count
    sha256: _Sha256
    size: _Count


@_strict
class _Part(_OfDevice):
    m: Literal["part"]
    id: _Count
    sha256: _Sha256
    offset: _Count


@_strict
class _Sign(_OfRun):
    m: Literal["sign"]
    id: _Count
    challenge: _Hex


_FromGateway = (
    _Hello
    | _Cancel
    | _Connections
    | _Ask
    | _Ended
    | _Left
    | _Evaluated
    | _EvaluationLost
    | _SelfCheckFailure
    | _Accept
    | _Open
    | _AboutDevice
    | _Enrol
    | _AboutAssignment
    | _VersionRecord
    | _Artifact
    | _Piece
    | _KeepPart
    | _Part
    | _Sign
)


# What a conductor says.


@_strict
class _Run(_OfRun):
    m: Literal["run"]
    config: _Table
    artifacts: _Text
    key: _Key
    tiers: Annotated[list[_Tier], Field(min_length=1, max_length=1_000)]
    versions: list[tuple[_Count, Annotated[int, Field(ge=-1, lt=2**63)], bool]]
    newest: _Version
    finished: _Finished | None


@_strict
class _Plain(TypedDict):
    m: Literal["ready"]


@_strict
class _OtherRelease(TypedDict):
    m: Literal["other_release"]
    release: int


@_strict
class _NewVersion(_OfRun, _Version):
    m: Literal["version"]


@_strict
class _Room(_OfRun):
    m: Literal["room"]
    open: bool


@_strict
class _RunFinished(_OfRun, _Finished):
    m: Literal["finished"]


@_strict
class _Resumed(_OfRun):
    m: Literal["resumed"]


class _Work(_OfConnection):
    version: _Count
    tier: Annotated[str, Field(max_length=256)]
    graph: bool
    weights: NotRequired[Annotated[list[_File], Field(max_length=1_000)]]


@_strict
class _Assign(_Work):
    m: Literal["assign"]
    number: _Count
    payload: _Table


@_strict
class _Evaluate(_Work):
    m: Literal["evaluate"]
    evaluation: _Name


@_strict
class _Later(_OfConnection):
    m: Literal["later"]
    seconds: _Seconds
    reason: _Text


@_strict
class _Wait(_OfConnection):
    m: Literal["wait"]
    reason: _Text


@_strict
class _Merged(_OfConnection):
    m: Literal["merged"]
    assignment: _Name
    version: _Count
    staleness: _Count
    weight: float


@_strict
class _Fail(_OfConnection):
    m: Literal["fail"]
    code: _Name
    text: _Text


# What it answers.


class _Answer(TypedDict):
    re: _Count


@_strict
class _Failed(_Answer):
    m: Literal["failed"]
    error: Literal["update", "refused", "expelled", "unavailable", "store"]
    code: _Name
    text: _Text


@_strict
class _Done(_Answer):
    m: Literal["re:connections", "re:room", "re:add_failure", "re:close_assignment", "re:keep_part"]


@_strict
class _ReAccept(_Answer):
    m: Literal["re:accept"]
    new: bool


@_strict
class _ReOpen(_Answer):
    m: Literal["re:open"]
    earlier: _Moved
    assignment: _Assignment | None


@_strict
class _ReSecret(_Answer):
    m: Literal["re:secret"]
    secret: _Hex | None


@_strict
class _ReDevice(_Answer):
    m: Literal["re:device"]
    device: _Device | None


@_strict
class _ReEnrol(_Answer):
    m: Literal["re:enrol"]
    enrolment: Literal["enrolled", "taken", "token", "revoked"]


@_strict
class _ReAssignment(_Answer):
    m: Literal["re:assignment"]
    record: _Assignment | None


@_strict
class _ReVersionRecord(_Answer):
    m: Literal["re:version_record"]
    parent: Annotated[int, Field(ge=-1, lt=2**63)]
    at: float
    pruned: bool


@_strict
class _ReIsAccepted(_Answer):
    m: Literal["re:is_accepted"]
    accepted: bool


@_strict
class _ReArtifact(_Answer):
    m: Literal["re:artifact"]
    path: _Text


@_strict
class _RePiece(_Answer):
    m: Literal["re:piece", "re:part"]
    size: _Count


@_strict
class _ReSign(_Answer):
    m: Literal["re:sign"]
    key: _Hex
    signature: _Hex


_FromConductor = (
    _Run
    | _Plain
    | _OtherRelease
    | _NewVersion
    | _Room
    | _RunFinished
    | _Resumed
    | _Assign
    | _Evaluate
    | _Later
    | _Wait
    | _Merged
    | _Fail
    | _Failed
    | _Done
    | _ReAccept
    | _ReOpen
    | _ReSecret
    | _ReDevice
    | _ReEnrol
    | _ReAssignment
    | _ReVersionRecord
    | _ReIsAccepted
    | _ReArtifact
    | _RePiece
    | _ReSign
)


class Reader:
    """
    Reads the messages of one side.

    Args:
        who: it is.
        kinds: a union of what it may say.
        text_bytes: the longest message.
        contents: the kinds of message that bytes may follow, and how many at the most.

    """

    def __init__(self, who: str, kinds: Any, text_bytes: int, contents: dict[str, int]) -> None:
        self.who = who
        self.text_bytes = text_bytes
        self._contents = contents
        self.content_bytes = max(contents.values())
        self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(Annotated[kinds, Field(discriminator="m")])

    def read(self, text: bytes, content: int) -> dict[str, Any]:
        """
        A message, of its JSON and the number of bytes that follow it.

        Raises:
            ValueError: naming the field that is wrong, without its value, which may be secret.

        """
        try:
            message = self._adapter.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise ValueError(f"{where}: {first['msg']}") from None
        if content > self._contents.get(message["m"], 0):
            raise ValueError(f"{message['m']}: {content} bytes follow it")
        return message


GATEWAY = Reader("gateway", _FromGateway, GATEWAY_TEXT_BYTES, {"accept": 2**31, "keep_part": 2**31})
CONDUCTOR = Reader("conductor", _FromConductor, CONDUCTOR_TEXT_BYTES, {"re:piece": PIECE_BYTES, "re:part": PIECE_BYTES})
