"""How a device is let in: tokens, secrets, names, revocation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.run_state import RunState
from coordinator.sessions.enrolment import Enrolment
from coordinator.simulation.virtual_time import run
from coordinator.store.records import TokenRecord
from mobile_sdk.errors import Refused
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.device_session import DeviceSession
from mobile_sdk.protocol.messages import Enrol, Hello, Hex, Proof, Welcome
from mobile_sdk.protocol.session import Event

from ..small_run import SmallRun, make_run

SECRET = b"s" * 32


@dataclasses.dataclass
class Door:
    """The two sides of a handshake, without a link between them."""

    enrolment: Enrolment
    ours: CoordinatorSession
    theirs: DeviceSession
    challenges: list[str | bytes] = dataclasses.field(default_factory=list)

    async def greet(self) -> list[Event]:
        """Everything up to the device's answer to the challenge."""
        (hello,) = self._pass(self.theirs, self.ours)
        assert isinstance(hello, Hello)
        await self.enrolment.greeted(hello)
        self.challenges += self.ours.frames_to_send()
        for frame in self.challenges:
            self.theirs.receive(frame, 0.0)
        return self._pass(self.theirs, self.ours)

    async def come_in(self) -> str:
        """The whole handshake; the name that was proved."""
        for event in await self.greet():
            if isinstance(event, Enrol):
                self.enrolment.enrol(event)
            elif isinstance(event, Proof):
                name = await self.prove(event)
        (welcome,) = self._pass(self.ours, self.theirs)
        assert isinstance(welcome, Welcome)
        return name

    async def prove(self, proof: Proof) -> str:
        return await self.enrolment.prove(proof)

    @staticmethod
    def _pass(sender: Any, receiver: Any) -> list[Event]:
        return [event for frame in sender.frames_to_send() for event in receiver.receive(frame, 0.0)]


def door(small: SmallRun, state: RunState, name: str = "phone-1", secret: bytes = SECRET, **device: Any) -> Door:
    key = small.key
    ours = CoordinatorSession(run="small", key=key.public)
    facts: dict[str, Any] = {"token": "", "enrolled": False} | device
    theirs = DeviceSession(run="small", device=name, secret=secret, key=key.public, **facts)
    return Door(Enrolment(state, ours, key), ours, theirs)


def test_the_updates_of_a_device_that_enrols_anew_after_its_withdrawal_are_merged_again(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        state = small.state()
        state.withdrawn |= {"phone-1", "phone-2"}
        assert await door(small, state).come_in() == "phone-1"
        assert state.withdrawn == {"phone-2"}

    run(main())


def test_a_new_device_enrols_and_comes_back_with_its_secret_alone(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        state = small.state()
        assert await door(small, state).come_in() == "phone-1"
        assert small.store.devices.secret("phone-1") == SECRET
        again = door(small, state, enrolled=True)
        assert [type(event) for event in await again.greet()] == [Proof]

    run(main())


def test_a_device_with_another_secret_is_not_let_in_under_a_name_that_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        state = small.state()
        await door(small, state).come_in()
        with pytest.raises(
            Refused,
            match=r"taken by another device: if its app was installed anew.*`ftte devices withdraw phone-1`",
        ) as refused:
            await door(small, state, secret=b"t" * 32).come_in()
        assert refused.value.code == "enrolment"
        with pytest.raises(Refused, match="could not prove that it is the device that enrolled") as refused:
            await door(small, state, secret=b"t" * 32, enrolled=True).come_in()
        assert refused.value.code == "auth"

    run(main())


def test_a_stranger_does_not_learn_which_names_take_part(tmp_path: Path) -> None:
    """Neither by the challenge, nor by a proof, nor by enrolling without a token."""

    async def answers(small: SmallRun, state: RunState, name: str) -> list[str]:
        found = []
        for facts in ({"enrolled": True}, {"token": ""}, {"token": "guessed"}):
            opened = door(small, state, name, secret=b"t" * 32, **facts)
            with pytest.raises(Refused) as refused:
                await opened.come_in()
            challenge = json.loads(str(opened.challenges[0]))
            varying = {"nonce": "", "signature": ""}
            found += [json.dumps(challenge | varying), str(refused.value).replace(name, "NAME")]
        return found

    async def main() -> None:
        small = make_run(tmp_path, server={"open_enrolment": False})
        state = small.state()
        digest = hashlib.sha256(b"invited").hexdigest()
        small.store.tokens.add(TokenRecord("t1", digest, None, None, 0.0), by="anna")
        await door(small, state, "phone-1", token="invited").come_in()
        assert await answers(small, state, "phone-1") == await answers(small, state, "phone-2")
        with pytest.raises(Refused, match="taken by another device"):
            await door(small, state, "phone-1", secret=b"t" * 32, token="invited").come_in()

    run(main())


def test_a_name_that_another_device_took_meanwhile_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        state = small.state()
        late = door(small, state, secret=b"t" * 32)
        enrol, proof = await late.greet()
        await door(small, state).come_in()
        assert isinstance(enrol, Enrol)
        assert isinstance(proof, Proof)
        late.enrolment.enrol(enrol)
        with pytest.raises(Refused, match="taken by another device") as refused:
            await late.prove(proof)
        assert refused.value.code == "enrolment"

    run(main())


def test_a_secret_that_a_link_garbled_takes_no_name_and_no_token(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, server={"open_enrolment": False})
        state = small.state()
        digest = hashlib.sha256(b"invited").hexdigest()
        small.store.tokens.add(TokenRecord("t1", digest, 1, None, 0.0), by="anna")
        garbled = door(small, state, token="invited")
        enrol, proof = await garbled.greet()
        assert isinstance(enrol, Enrol)
        assert isinstance(proof, Proof)
        garbled.enrolment.enrol(dataclasses.replace(enrol, secret=Hex("ff" + enrol.secret[2:])))
        with pytest.raises(Refused, match="it may enrol again") as refused:
            await garbled.prove(proof)
        assert refused.value.code == "auth"
        assert small.store.devices.all() == []
        assert await door(small, state, token="invited").come_in() == "phone-1"

    run(main())


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        opened = door(small, small.state())
        await opened.greet()
        with pytest.raises(Refused, match=f"has 32 bytes, not {size}"):
            opened.enrolment.enrol(Enrol("", Hex("ab" * size)))
        assert small.store.devices.all() == []

    run(main())


@pytest.mark.parametrize(
    ("server", "token", "enters"),
    [
        ({}, "", True),
        ({}, "made-up", False),  # who gives a token means it
        ({"token": "open sesame"}, "open sesame", True),
        ({"token": "open sesame"}, "open sesame!", False),
        ({"token": "open sesame"}, "", False),
        ({"open_enrolment": False}, "", False),
        ({"open_enrolment": False}, "invited", True),
        ({"token": "open sesame"}, "invited", True),
    ],
)
def test_a_token_lets_a_device_in_where_it_needs_one(
    tmp_path: Path, server: dict[str, Any], token: str, enters: bool
) -> None:
    async def main() -> None:
        small = make_run(tmp_path, server=server)
        digest = hashlib.sha256(b"invited").hexdigest()
        small.store.tokens.add(TokenRecord("t1", digest, 1, None, 0.0), by="anna")
        opened = door(small, small.state(), token=token)
        if enters:
            assert await opened.come_in() == "phone-1"
            return
        with pytest.raises(Refused, match="token is wrong, used up, or has run out") as refused:
            await opened.come_in()
        assert refused.value.code == "enrolment"
        assert small.store.devices.all() == []

    run(main())


def test_a_one_time_token_lets_one_device_in(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, server={"open_enrolment": False})
        state = small.state()
        digest = hashlib.sha256(b"invited").hexdigest()
        small.store.tokens.add(TokenRecord("t1", digest, 1, None, 0.0), by="anna")
        await door(small, state, "phone-1", token="invited").come_in()
        with pytest.raises(Refused, match="used up"):
            await door(small, state, "phone-2", token="invited").come_in()

    run(main())


def test_a_revoked_device_is_told_so_once_it_has_proved_who_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        state = small.state()
        await door(small, state).come_in()
        small.store.devices.revoke("phone-1", 0.0, by="anna")
        with pytest.raises(Refused) as refused:
            await door(small, state, enrolled=True).come_in()
        assert refused.value.code == "revoked"
        with pytest.raises(Refused) as stranger:
            await door(small, state, secret=b"t" * 32, enrolled=True).come_in()
        assert stranger.value.code == "auth", "nobody else learns of it"

    run(main())


def test_an_operation_on_devices_while_the_store_is_read_makes_it_read_again(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        operations = [lambda: small.store.devices.revoke("phone-1", 0.0, by="anna")]

        async def slow(function: Any, *args: Any) -> Any:
            found = function(*args)
            if operations and armed:
                operations.pop()()
                state.membership += 1
            return found

        armed = False
        state = small.state(slow)
        await door(small, state).come_in()
        again = door(small, state, enrolled=True)
        (proof,) = await again.greet()
        armed = True
        assert isinstance(proof, Proof)
        with pytest.raises(Refused, match="has revoked this device"):
            await again.prove(proof)

    run(main())
