"""Whatever a peer sends, it gets a clear answer, and the run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
import websockets
from websockets.asyncio.client import connect

from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.messages import Accepted, Error, Name, Rejected, Welcome

from .conftest import Peer, Site, payload

OpenPeer = Callable[[str], contextlib.AbstractAsyncContextManager[Peer]]
SETTINGS = "[merge]\nbuffer = 2\n[merge.staleness]\nmaximum = 1\n[stop]\nversions = 3\n"


@pytest.fixture
def play(site: Site, peer: OpenPeer) -> Callable[[Callable[[Peer], Coroutine[Any, Any, None]]], None]:
    """Run a peer's script against a coordinator; then real devices must still be served to the end."""

    def run(script: Callable[[Peer], Coroutine[Any, Any, None]]) -> None:
        server = site.serve(SETTINGS)

        async def main() -> None:
            async with peer("mallory") as mallory:
                await script(mallory)

        asyncio.run(main())
        phone = site.device("phone-1", 0)
        assert server.wait() == 0
        assert phone.wait() == 0
        assert site.summary()["versions"] == 3

    return run


def test_an_update_sent_twice_is_merged_once(play: Any, site: Site) -> None:
    async def script(peer: Peer) -> None:
        assign = await peer.join()
        content = payload(await peer.zeros(assign))
        assert await peer.offer(assign, content) == Accepted(assign.assignment, 0, False)
        assert await peer.offer(assign, content) == Accepted(assign.assignment, 0, True)

    play(script)
    assert site.query("SELECT count(*) FROM updates WHERE device = 'mallory'") == [(1,)]
    assert site.query("SELECT merged_into FROM updates WHERE device = 'mallory'") == [(1,)]


def bad_updates() -> dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]]:
    def first(arrays: dict[str, Any], value: Any) -> dict[str, Any]:
        return arrays | {next(iter(arrays)): value(next(iter(arrays.values())))}

    return {
        "not a number": (lambda a: first(a, lambda v: np.full_like(v, np.nan)), "not-finite"),
        "infinite": (lambda a: first(a, lambda v: np.full_like(v, np.inf)), "not-finite"),
        "absurd": (lambda a: first(a, lambda v: np.full_like(v, 1e30)), "magnitude"),
        "too long": (lambda a: a | {"more": np.zeros(50_000, np.float32)}, "size"),
        "too short": (lambda a: dict(list(a.items())[1:3]), "payload"),
        "other name": (lambda a: {f"x{name}": value for name, value in a.items()}, "payload"),
        "other shape": (lambda a: first(a, lambda v: v.reshape(-1)), "payload"),
        "other dtype": (lambda a: first(a, lambda v: v.view(np.int32)), "payload"),
    }


@pytest.mark.parametrize("case", bad_updates())
def test_a_bad_update_is_refused_and_its_sender_told_why(case: str, site: Site, peer: OpenPeer) -> None:
    change, code = bad_updates()[case]
    site.serve(SETTINGS)

    async def main() -> None:
        async with peer("mallory") as mallory:
            assign = await mallory.join()
            good = await mallory.zeros(assign)
            answer = await mallory.offer(assign, payload(change(good)))
            assert isinstance(answer, Rejected)
            assert answer.code == code
            # The same connection goes on: the next assignment is another one, and a good update is taken.
            following = await mallory.work()
            assert following.assignment != assign.assignment
            assert isinstance(await mallory.offer(following, payload(good)), Accepted)

    asyncio.run(main())
    assert site.query("SELECT count(*) FROM updates") == [(1,)]


def test_an_update_of_an_unknown_version_or_assignment_is_refused(play: Any) -> None:
    async def script(peer: Peer) -> None:
        assign = await peer.join()
        content = payload(await peer.zeros(assign))
        answer = await peer.offer(assign, content, version=17)
        assert isinstance(answer, Rejected)
        assert answer.code == "unknown-version"
        assert "17" in answer.message
        stranger = dataclasses.replace(assign, assignment=Name("a00009999"))
        answer = await peer.offer(stranger, content)
        assert isinstance(answer, Rejected)
        assert answer.code == "unknown-assignment"

    play(script)


def test_an_update_that_is_too_stale_is_refused_kindly(site: Site, peer: OpenPeer) -> None:
    server = site.serve("[merge]\nbuffer = 1\n[merge.staleness]\nmaximum = 1\n[stop]\nversions = 9\n")

    async def main() -> None:
        async with peer("tortoise") as tortoise, peer("hare") as hare:
            late = await tortoise.join()
            assign = await hare.join()
            content = payload(await hare.zeros(assign))
            for _ in range(2):
                assert isinstance(await hare.offer(assign, content), Accepted)
                while (following := await hare.work()).version == assign.version:
                    assert isinstance(await hare.offer(following, content), Accepted)
                assign = following
            answer = await tortoise.offer(late, content)
            assert isinstance(answer, Rejected)
            assert answer.code == "stale"

    asyncio.run(main())
    server.stop()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("not json", "not JSON"),
        ('{"type":"surprise"}', "unknown message type"),
        (r'{"type":"error","code":"x","message":"\ud800"}', "printable"),
        ('{"type":"fetch","sha256":"x","offset":0}', "fetch.sha256"),
        (b"\x01short", "a chunk has"),
        (b"\x07" + bytes(60), "kind 7"),
        (b"\x01" + bytes(60), "not asked for"),
    ],
    ids=["no json", "unknown type", "broken text", "bad field", "short chunk", "unknown kind", "unasked chunk"],
)
def test_a_malformed_frame_is_answered_and_the_connection_closed(frame: Any, words: str, play: Any) -> None:
    async def script(peer: Peer) -> None:
        await peer.next(Welcome)
        await peer.socket.send(frame)
        answer = decode(str(await peer.socket.recv()))
        assert isinstance(answer, Error)
        assert words in answer.message
        with pytest.raises(websockets.ConnectionClosed):
            await peer.socket.recv()

    play(script)


def test_an_oversized_frame_ends_the_connection_with_its_reason(play: Any) -> None:
    async def script(peer: Peer) -> None:
        await peer.next(Welcome)
        with contextlib.suppress(websockets.ConnectionClosed):
            await peer.socket.send(bytes(2**20 + 4096))
        await peer.socket.wait_closed()
        assert peer.socket.close_code == 1009
        assert "exceeds limit" in (peer.socket.close_reason or "")

    play(script)


def test_another_devices_work_cannot_be_handed_in(site: Site, peer: OpenPeer) -> None:
    site.serve(SETTINGS)

    async def main() -> None:
        async with peer("alice") as alice, peer("mallory") as mallory:
            assign = await alice.join()
            content = payload(await alice.zeros(assign))
            await mallory.join()
            answer = await mallory.offer(assign, content)
            assert isinstance(answer, Rejected)
            assert answer.code == "unknown-assignment"
            assert isinstance(await alice.offer(assign, content), Accepted)

    asyncio.run(main())


def test_nobody_can_take_a_devices_name(site: Site, peer: OpenPeer) -> None:
    site.serve(SETTINGS)

    async def main() -> None:
        async with peer("alice") as alice:
            await alice.join()
        async with connect(site.url) as socket:
            impostor = Peer(socket, site, "alice")
            impostor.session._secret = bytes(32)
            with pytest.raises(AssertionError, match="taken by another device"):
                await impostor.join()

    asyncio.run(main())


def test_a_wrong_enrolment_token_is_refused_with_the_remedy(site: Site) -> None:
    # The [server] table is open when the settings begin, so the key lands in it.
    server = site.serve()
    server.stop()
    run_file = site.folder / "run.toml"
    run_file.write_text(run_file.read_text().replace("[server]\n", '[server]\ntoken = "open sesame"\n'))
    from .conftest import BIN, Process

    server = Process(BIN / "ftte", "serve", run_file, log=site.folder / "serve2.log")
    try:
        server.wait_for("waits for devices")
        wrong = site.device("phone-1", 0, "--token", "sesame")
        assert wrong.wait() == 1
        assert "enrolment token is wrong" in wrong.output
        assert "sesame" not in server.output
        right = site.device("phone-2", 1, "--token", "open sesame")
        right.wait_for("connected as phone-2")
    finally:
        server.stop()
