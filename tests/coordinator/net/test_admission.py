"""The door: who opens connections and says nothing must not keep devices out."""

from __future__ import annotations

from coordinator.net.admission import ConnectionLimits, Rate


def test_silent_connections_hold_only_the_places_of_silent_ones() -> None:
    gate = ConnectionLimits(connections=10, handshakes=3, per_address=3)
    assert (gate.open, gate.shed, gate.cut) == (0, 0, 0)
    for _ in range(3):
        assert gate.enter("device")
        gate.prove("device")
    for _ in range(3):
        assert gate.enter("attacker")
    assert not gate.enter("attacker")
    assert not gate.enter("device")  # every place of the unproven is taken, but those who are in stay in
    assert (gate.open, gate.unproven, gate.shed) == (6, 3, 2)
    gate.leave("attacker", proven=False)
    assert gate.enter("device")


def test_one_address_has_few_of_the_places() -> None:
    gate = ConnectionLimits(connections=10, handshakes=5, per_address=2)
    assert gate.enter("attacker")
    assert gate.enter("attacker")
    assert not gate.enter("attacker")
    assert gate.enter("device")


def test_no_more_connections_than_allowed_are_open() -> None:
    gate = ConnectionLimits(connections=2, handshakes=2, per_address=2)
    for _ in range(2):
        assert gate.enter("a")
        gate.prove("a")
    assert not gate.enter("b")
    gate.leave("a", proven=True)
    assert gate.enter("b")


def test_a_rate_allows_a_burst_and_then_an_average() -> None:
    rate = Rate(10)
    assert sum(rate.take(0.0) for _ in range(1000)) == 40, "four seconds' worth"
    assert sum(rate.take(0.11 * i) for i in range(1, 1001)) == 1000
