"""What a client makes of its arguments, before it connects anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobile_sdk import BlockingClient, Client, Transport
from mobile_sdk.client import arguments_of
from mobile_sdk.errors import InviteError, NoModel
from mobile_sdk.invite import Invite

INVITE = Invite("wss://example.org:8765", "digits", "ab" * 32, "open sesame", "cd" * 32)
DATA = (np.zeros((4, 2), np.float32), np.zeros(4, np.int64))


def test_an_invite_gives_address_run_key_token_and_certificate() -> None:
    assert arguments_of(str(INVITE), {}) == {
        "url": "wss://example.org:8765",
        "run": "digits",
        "key": "ab" * 32,
        "token": "open sesame",
        "transport": Transport(certificate="cd" * 32),
    }
    with pytest.raises(InviteError):
        arguments_of("https://example.org", {})


def test_a_proxy_of_ones_own_does_not_stop_the_comparison_of_certificates() -> None:
    chosen = Transport(proxy="http://proxy.example:3128")
    given = arguments_of(INVITE, {"transport": chosen})["transport"]
    assert given == Transport(proxy="http://proxy.example:3128", certificate="cd" * 32)
    own = Transport(certificate="ef" * 32)
    assert arguments_of(INVITE, {"transport": own})["transport"] == own


def test_options_of_the_app_come_before_those_of_the_invite() -> None:
    given = arguments_of(INVITE, {"token": "another", "budget": 5})
    assert (given["token"], given["budget"]) == ("another", 5)


@pytest.mark.parametrize("make", [Client, BlockingClient])
def test_a_malformed_address_or_key_is_named_and_touches_no_folder(
    make: type[Client] | type[BlockingClient], tmp_path: Path
) -> None:
    folder = tmp_path / "phone"
    for address in ("example.org", "ws://127.0.0.1:8765.", "wss://example.org:70000"):
        with pytest.raises(ValueError, match="not the address of a coordinator"):
            make(address, run="digits", key="ab" * 32, dataset=DATA, storage=folder)
    with pytest.raises(ValueError, match=r"in the clear.*Transport\(insecure=True\)"):
        make("ws://example.org:1", run="digits", key="ab" * 32, dataset=DATA, storage=folder)
    with pytest.raises(ValueError, match="64 hex digits"):
        make("wss://example.org", run="digits", key="AB" * 32, dataset=DATA, storage=folder)
    assert not folder.exists()
    transport = Transport(insecure=True)
    made = make("ws://example.org:1", run="digits", key="ab" * 32, dataset=DATA, storage=folder, transport=transport)
    made.close()


def test_before_a_program_has_come_there_is_no_model_to_ask(tmp_path: Path) -> None:
    client = Client.from_invite(INVITE, dataset=DATA, storage=tmp_path, name="phone-1")
    assert client.device == "phone-1"
    with pytest.raises(NoModel, match="take part in the run"):
        client.predict(DATA[0])
    with pytest.raises(NoModel):
        _ = client.contract
    client.close()
