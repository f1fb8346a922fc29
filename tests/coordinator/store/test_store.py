"""Every store keeps what it acknowledged, once, through restarts."""

from __future__ import annotations

import dataclasses
import re
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coordinator.errors import Expelled, StoreError
from coordinator.store.interface import DeviceOrder, Store
from coordinator.store.records import (
    AssignmentRequest,
    DiscardedUpdate,
    MergedUpdate,
    SetAside,
    TokenRecord,
    VersionRecord,
)
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from .assigning import assign, open_assignment
from .filled import REF, RUN, TIER, fill, update, version
from .places import Place


def test_everything_survives_a_restart(store: Store, place: Place) -> None:
    accepted = update(store)
    store.updates.accept([accepted])
    store.devices.add_traffic("phone-1", 7, 9)
    again = place.reopen()
    assert again.run() == RUN
    assert again.tiers() == [TIER]
    assert again.versions.all() == [version(0)]
    assert again.updates.buffered() == [accepted[0]]
    assert again.updates.content(accepted[0].assignment) == b"content"
    assert again.devices.secret("phone-1") == b"s" * 32
    (device,) = again.devices.all()
    assert (device.bytes_up, device.bytes_down, device.updates, device.report) == (7, 9, 1, {"samples": 4})


def test_an_update_is_accepted_once(store: Store) -> None:
    accepted = update(store)
    assert store.updates.accept([accepted, accepted]) == {accepted[0].assignment}
    assert store.updates.accept([accepted]) == set()
    assert len(store.updates.buffered()) == 1
    assert store.devices.all()[0].updates == 1


def test_work_that_is_given_at_once_is_numbered_in_order(store: Store) -> None:
    for device in ("phone-2", "phone-3"):
        store.devices.enrol(device, b"t" * 32, 1.0)
    wanted = ["phone-3", "phone-1", "phone-2"]
    records = store.assignments.assign([AssignmentRequest(device, 0, "small", 2.0) for device in wanted])
    assert [record.device for record in records] == wanted
    assert [record.number for record in records] == sorted(record.number for record in records)
    assert {record.id: record.device for record in store.assignments.open()} == {
        record.id: record.device for record in records
    }


def test_a_merge_that_names_an_update_twice_does_not_happen(store: Store) -> None:
    accepted = update(store)
    store.updates.accept([accepted])
    twice = [MergedUpdate(accepted[0].assignment, 0, 1.0)] * 2
    with pytest.raises(StoreError, match="merged before"):
        store.versions.commit(version(1), twice)
    assert store.updates.buffered() == [accepted[0]]


def test_updates_that_were_taken_in_are_known_by_device_and_hash_merged_or_not(store: Store) -> None:
    accepted = update(store)[0], b"content"
    store.updates.accept([accepted])
    known = ("phone-1", accepted[0].artifact.sha256)
    asked = {known, ("phone-2", known[1]), ("phone-1", "0" * 64)}
    assert store.updates.taken_in(asked) == {known}
    store.versions.commit(version(1), [MergedUpdate(accepted[0].assignment, 0, 1.0)])
    assert store.updates.taken_in(asked) == {known}
    assert store.updates.taken_in(set()) == set()


def test_an_update_is_merged_once(store: Store) -> None:
    accepted = update(store)[0], b"content"
    store.updates.accept([accepted])
    merged = [MergedUpdate(accepted[0].assignment, 2, 0.5)]
    store.versions.commit(version(1), merged)
    with pytest.raises(StoreError, match="merged before"):
        store.versions.commit(version(2), merged)
    assert store.versions.latest() == version(1)
    assert store.updates.merged() == merged
    assert store.updates.buffered() == []


def test_a_merge_of_an_update_that_was_never_accepted_changes_nothing(store: Store) -> None:
    first = update(store)
    store.updates.accept([first])
    with pytest.raises(StoreError, match="never accepted"):
        store.versions.commit(
            version(1), [MergedUpdate(first[0].assignment, 0, 1.0), MergedUpdate("a00000099", 0, 1.0)]
        )
    assert store.versions.latest() == version(0)
    assert len(store.updates.buffered()) == 1


def test_a_version_number_is_never_used_again(store: Store) -> None:
    store.versions.commit(version(1), [])
    with pytest.raises(StoreError, match="version 1 was written before"):
        store.versions.commit(version(1), [])


def test_a_device_has_one_open_assignment(store: Store) -> None:
    first = assign(store, "phone-1", 0, "small", 1.0)
    second = assign(store, "phone-1", 0, "small", 2.0)
    assert first.id < second.id
    assert open_assignment(store, "phone-1") == second
    found = store.assignments.find(first.id)
    assert found is not None
    assert not found.open
    store.assignments.close(second.id)
    assert open_assignment(store, "phone-1") is None


def test_of_several_orders_at_once_for_one_device_the_last_is_open(store: Store) -> None:
    store.devices.enrol("phone-2", b"t" * 32, 1.0)
    names = ("phone-1", "phone-2", "phone-1")
    first, other, last = store.assignments.assign(
        [AssignmentRequest(name, 0, "small", at) for at, name in enumerate(names, 3)]
    )
    assert (last.number, last.device, last.issued_at) == (first.number + 2, "phone-1", 5.0)
    assert store.assignments.open() == [other, last]
    store.versions.commit(version(1), [])
    assert store.versions.prune(lambda versions: {1}, since=4.5) == [], "the device was given version 0 after that"


def test_work_that_ended_without_an_update_is_forgotten_after_a_while_and_nothing_else(store: Store) -> None:
    given, other = update(store), update(store, b"other")
    store.updates.accept([given])
    replaced = assign(store, "phone-1", 0, "small", 4.0)
    late = assign(store, "phone-1", 0, "small", 6.0)
    store.assignments.close(late.id)
    store.devices.enrol("phone-2", b"t" * 32, 1.0)
    at_work = assign(store, "phone-2", 0, "small", 1.0)
    assert store.assignments.prune(6.0) == 2
    names = [given[0].assignment, other[0].assignment, replaced.id, late.id, at_work.id]
    assert [store.assignments.find(name) is not None for name in names] == [True, False, False, True, True]
    assert store.assignments.prune(6.0) == 0


def test_a_store_without_a_run_says_so(place: Place) -> None:
    store = place.open()
    assert store.run() is None
    with pytest.raises(StoreError, match="holds no run: begin one first"):
        store.versions.latest()


def test_programs_are_signed_anew(store: Store, place: Place) -> None:
    store.sign({"small": "11", "none of them": "22"})
    assert place.reopen().tiers() == [dataclasses.replace(TIER, signature="11")]


@pytest.mark.parametrize("name", ["a1", "a0000000x", "", "b00000001", "a00000002", "a" + "9" * 40, "1"])
def test_only_the_name_that_was_given_out_finds_an_assignment(store: Store, name: str) -> None:
    assert assign(store, "phone-1", 0, "small", 1.0).id == "a00000001"
    assert store.assignments.find(name) is None


def test_a_name_belongs_to_the_first_secret_that_took_it(store: Store) -> None:
    assert store.devices.enrol("phone-1", b"s" * 32, 9.0) == "enrolled"
    assert store.devices.enrol("phone-1", b"t" * 32, 9.0) == "taken"
    assert store.devices.secret("phone-1") == b"s" * 32


def test_only_who_may_enrol_learns_that_a_name_is_taken(store: Store) -> None:
    store.tokens.add(TokenRecord("t", "d" * 64, 1, None, 1.0), by="anna")
    assert store.devices.enrol("phone-1", b"t" * 32, 2.0, token="e" * 64) == "token"
    assert store.devices.enrol("phone-1", b"t" * 32, 2.0, token="d" * 64) == "taken"
    assert store.tokens.all()[0].uses_left == 1, "that costs no use"


def test_a_page_of_devices_may_be_limited_to_some_of_them(store: Store) -> None:
    for name in ("phone-2", "phone-3", "tablet-1"):
        store.devices.enrol(name, b"s" * 32, 1.0)

    def page(search: str = "", among: set[str] | None = None, offset: int = 0) -> tuple[int, list[str]]:
        total, found = store.devices.page(search, "id", descending=False, offset=offset, limit=2, among=among)
        return total, [device.id for device in found]

    assert page() == (4, ["phone-1", "phone-2"])
    assert page(offset=1) == (4, ["phone-2", "phone-3"])
    assert page("p", {"phone-1", "phone-3"}, offset=1) == (2, ["phone-3"])
    assert page(among={"tablet-1", "phone-3", "nobody"}) == (2, ["phone-3", "tablet-1"])
    assert page("phone", among={"tablet-1", "phone-3"}) == (1, ["phone-3"])
    assert page(among=set()) == (0, [])


def test_a_revoked_device_stays_out_and_its_work_is_closed(store: Store) -> None:
    assign(store, "phone-1", 0, "small", 1.0)
    assert store.devices.revoke("phone-1", 2.0, by="anna")
    assert open_assignment(store, "phone-1") is None
    assert store.devices.enrol("phone-1", b"s" * 32, 3.0) == "revoked"
    device = store.devices.find("phone-1")
    assert device is not None
    assert device.revoked_at == 2.0
    assert not store.devices.revoke("phone-2", 2.0, by="anna")


def test_a_device_that_is_set_aside_has_no_open_work_and_may_ask_for_new(store: Store, place: Place) -> None:
    store.devices.enrol("phone-2", b"t" * 32, 1.0)
    closed, other = assign(store, "phone-1", 0, "small", 1.0), assign(store, "phone-2", 0, "small", 1.0)
    aside = SetAside(9.0, "length", "an update is 1e+06 times as long")
    store.devices.set_aside("phone-1", aside, 2.0)
    assert store.assignments.open() == [other]
    line = store.audit.entries()[-1]
    assert (line.at, line.actor, line.action, line.details) == (
        2.0,
        "coordinator",
        "set aside",
        dataclasses.asdict(aside),
    )
    again = place.reopen()
    assert [device.aside for device in again.devices.all()] == [aside, None]
    found = again.assignments.find(closed.id)
    assert found is not None
    assert not found.open
    assert assign(again, "phone-1", 0, "small", 9.0).open


def test_who_is_no_device_cannot_be_set_aside(store: Store) -> None:
    before = store.audit.entries(), store.devices.all()
    store.devices.set_aside("nobody", SetAside(9.0, "length", "too long"), 2.0)
    assert (store.audit.entries(), store.devices.all()) == before


@pytest.mark.parametrize("end", ["revoke", "withdraw"])
def test_who_was_revoked_or_withdrawn_gets_no_work_and_hands_nothing_in(store: Store, end: str) -> None:
    given = update(store)
    getattr(store.devices, end)("phone-1", 1.0, by="anna")
    with pytest.raises(Expelled, match=f"the device of {given[0].assignment} was revoked or withdrawn"):
        store.updates.accept([given])
    with pytest.raises(Expelled, match="phone-1 was revoked or withdrawn"):
        assign(store, "phone-1", 0, "small", 2.0)
    assert store.updates.buffered() == []
    assert store.assignments.open() == []


def test_a_device_that_withdraws_is_forgotten_and_what_was_merged_stays(store: Store) -> None:
    store.devices.enrol("phone-2", b"t" * 32, 1.0)
    merged, waiting = update(store, b"merged"), update(store, b"waiting")
    store.updates.accept([merged, waiting])
    store.versions.commit(version(1), [MergedUpdate(merged[0].assignment, 0, 0.5)])
    open_one, other = assign(store, "phone-1", 1, "small", 5.0), assign(store, "phone-2", 1, "small", 5.0)
    assert store.devices.withdraw("phone-1", 6.0, by="anna") == [waiting[0].assignment]
    assert store.devices.find("phone-1") is None
    assert [device.id for device in store.devices.all()] == ["phone-2"]
    assert store.assignments.open() == [other]
    assert [store.assignments.find(name) for name in (waiting[0].assignment, open_one.id)] == [None, None]
    assert store.updates.buffered() == []
    with pytest.raises(StoreError, match=f"no update of {waiting[0].assignment} waits to be merged"):
        store.updates.content(waiting[0].assignment)
    assert store.updates.merged() == [MergedUpdate(merged[0].assignment, 0, 0.5)], "the history of the model stays"
    assert [(trip.device, trip.report, trip.discarded) for trip in store.updates.trips(9)] == [
        (None, {}, None),
        (None, {}, "withdrawn"),
    ]
    assert store.updates.taken_in({("phone-1", merged[0].artifact.sha256)}) == set()
    line = store.audit.entries()[-1]
    assert (line.actor, line.action, line.details) == ("anna", "withdrawn", {"stopped": 1})
    assert store.devices.withdraw("phone-1", 7.0, by="anna") is None
    assert store.audit.entries()[-1] == line
    assert store.devices.enrol("phone-1", b"u" * 32, 8.0) == "enrolled", "the name is free again"


def test_an_update_that_the_disk_lost_may_be_handed_in_again(store: Store) -> None:
    given = update(store)
    store.updates.accept([given])
    store.updates.discard([DiscardedUpdate(given[0].assignment, "damaged")])
    assert not store.updates.is_accepted(given[0].assignment), "it would never be offered again"
    work = store.assignments.find(given[0].assignment)
    assert work is not None
    assert work.open
    assert store.updates.accept([given]) == {given[0].assignment}
    assert store.updates.is_accepted(given[0].assignment)
    assert store.updates.content(given[0].assignment) == b"content"


def test_an_update_that_the_disk_lost_takes_no_other_work_away(store: Store) -> None:
    given = update(store)
    store.updates.accept([given])
    newer = assign(store, "phone-1", 0, "small", 4.0)
    store.updates.discard([DiscardedUpdate(given[0].assignment, "damaged")])
    assert open_assignment(store, "phone-1") == newer


def test_a_discarded_update_is_never_merged_and_its_work_stays_closed(store: Store) -> None:
    given, other = update(store, b"an outlier"), update(store, b"other")
    store.updates.accept([given, other])
    store.updates.discard([DiscardedUpdate(given[0].assignment, "outlier")])
    assert store.updates.buffered() == [other[0]]
    assert store.updates.is_accepted(given[0].assignment)
    assert open_assignment(store, "phone-1") is None
    for end in (
        lambda: store.versions.commit(version(1), [MergedUpdate(given[0].assignment, 0, 1.0)]),
        lambda: store.updates.discard([DiscardedUpdate(name, "stale") for name in (other[0].assignment, "a00000099")]),
    ):
        with pytest.raises(StoreError, match="was merged before, or was never accepted"):
            end()
    assert store.versions.latest() == version(0)
    assert store.updates.buffered() == [other[0]], "all of them are discarded, or none"


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        (TokenRecord("t", "d" * 64, None, None, 1.0), ["enrolled", "enrolled"]),
        (TokenRecord("t", "d" * 64, 1, None, 1.0), ["enrolled", "token"]),
        (TokenRecord("t", "d" * 64, None, 5.0, 1.0), ["token", "token"]),
        (TokenRecord("t", "e" * 64, None, None, 1.0), ["token", "token"]),
    ],
    ids=["group", "one-time", "expired", "unknown"],
)
def test_a_token_lets_in_as_many_as_it_says(store: Store, token: TokenRecord, outcome: list[str]) -> None:
    store.tokens.add(token, by="anna")
    assert [store.devices.enrol(name, b"s" * 32, 9.0, token="d" * 64) for name in ("a", "b")] == outcome
    # A device that did not hear that it was let in tries again; that costs no use.
    assert store.devices.enrol("a", b"s" * 32, 9.0, token="d" * 64) == outcome[0]


def test_a_revoked_token_lets_nobody_in(store: Store) -> None:
    store.tokens.add(TokenRecord("t", "d" * 64, None, None, 1.0), by="anna")
    assert store.tokens.revoke("t", 2.0, by="anna")
    assert store.devices.enrol("a", b"s" * 32, 3.0, token="d" * 64) == "token"
    assert store.tokens.all()[0].revoked_at == 2.0


def test_a_rollback_is_a_new_version_and_takes_what_built_on_the_others_with_it(store: Store) -> None:
    store.versions.commit(version(1), [])
    stale, good = update(store), update(store, b"other")
    store.updates.accept([stale, good])
    open_one = assign(store, "phone-1", 1, "small", 3.0)
    record = VersionRecord(2, 0, (REF,), {}, 9.0, kind="rollback")
    store.versions.rollback(
        record, [DiscardedUpdate(stale[0].assignment, "rolled-back")], [open_one.id], by="anna", why="worse"
    )
    assert store.versions.latest() == record
    assert store.versions.next_number() == 3
    assert [u.assignment for u in store.updates.buffered()] == [good[0].assignment]
    assert open_assignment(store, "phone-1") is None
    line = store.audit.entries()[-1]
    assert (line.actor, line.action, line.details["to"]) == ("anna", "rolled back", 0)


def test_pruned_versions_lose_their_files_but_not_those_that_devices_still_hold(store: Store) -> None:
    def committed(number: int) -> ArtifactRef:
        (entry,) = store.artifacts.put(f"weights {number}".encode())
        ref = ArtifactRef(Sha256(entry.sha256), entry.size)
        store.versions.commit(dataclasses.replace(version(number), weights=(ref,)), [])
        return ref

    refs = {number: committed(number) for number in range(1, 6)}
    assign(store, "phone-1", 2, "small", 3.0)
    assert store.versions.prune(lambda versions: {4}, since=2.0) == [0, 1, 3]
    store.collect()
    for number, ref in refs.items():
        if number in (1, 3):
            with pytest.raises(StoreError, match="missing"):
                store.artifacts.path(ref.sha256)
        else:
            assert store.artifacts.verified(ref.sha256).read_bytes() == f"weights {number}".encode()
    assert [v.version for v in store.versions.all() if v.pruned] == [0, 1, 3]
    assert store.versions.prune(lambda versions: {4}, since=4.0) == [2], "the device is not expected back"


def test_every_file_that_a_run_names_stays_for_as_long_as_it_names_it(place: Place) -> None:
    store = place.open()
    names = ("evaluation", "manifest", "program", "graph", "weights", "optimiser", "weights of version 1")
    refs = [ArtifactRef(Sha256(e.sha256), e.size) for e in store.artifacts.put(*(name.encode() for name in names))]
    evaluation, manifest, program, graph, weights, optimiser, newer = refs
    first = dataclasses.replace(version(0), weights=(weights,), private={"optimiser": optimiser})
    tier = dataclasses.replace(TIER, manifest=manifest, program=program, graph=graph)
    store.create(dataclasses.replace(RUN, evaluation=evaluation.sha256), [tier], first)
    store.versions.commit(dataclasses.replace(version(1), weights=(newer,)), [])
    assert store.collect() == 0
    assert [store.artifacts.verified(ref.sha256).read_bytes().decode() for ref in refs] == list(names)
    assert store.versions.prune(lambda versions: {1}, since=9.0) == [0]
    assert store.collect() == 2
    again = place.reopen()
    gone = {weights, optimiser}
    folder = again.artifacts.path(evaluation.sha256).parent
    assert {ref for ref in refs if not (folder / ref.sha256).exists()} == gone


def test_a_file_that_no_row_names_yet_is_not_collected(store: Store) -> None:
    (entry,) = store.artifacts.put(b"weights of the version that is being merged")
    assert store.collect() == 0
    store.artifacts.path(entry.sha256)


def test_a_run_begins_with_its_first_lines_in_the_audit_log(store: Store) -> None:
    lines = [(entry.actor, entry.action, entry.subject) for entry in store.audit.entries()]
    assert lines[:2] == [("coordinator", "created", RUN.name), ("coordinator", "signed", TIER.name)]
    assert [action for _, action, _ in lines[2:]] == ["enrolled"]


def test_whatever_an_operator_does_is_a_line_and_what_changes_nothing_is_none(store: Store) -> None:
    store.tokens.add(TokenRecord("t", "d" * 64, 2, 9.5, 2.0, note="for the lab"), by="anna")
    store.devices.enrol("phone-2", b"t" * 32, 3.0, token="d" * 64)
    assert store.tokens.revoke("t", 4.0, by="otto")
    assert not store.tokens.revoke("no token", 4.0, by="otto")
    store.set_phase("paused", "holiday", 5.0, by="anna")
    store.devices.revoke("phone-2", 6.0, by="anna")
    assert not store.devices.revoke("nobody", 6.0, by="anna")
    rolled_back = VersionRecord(1, 0, (REF,), {}, 7.0, kind="rollback")
    store.versions.rollback(rolled_back, [], [], by="anna", why="worse")
    store.audit.write(8.0, "anna", "tested", "it", {"second": 2, "first": 1})
    lines = store.audit.entries()
    alias = {device.id: device.alias for device in store.devices.all()}
    signed = {"serial": 1, "manifest": REF.sha256}
    assert [(line.at, line.actor, line.action, line.subject, line.details) for line in lines] == [
        (1.0, "coordinator", "created", "digits", {}),
        (1.0, "coordinator", "signed", "small", signed),
        (1.0, "open enrolment", "enrolled", alias["phone-1"], {}),
        (2.0, "anna", "token created", "t", {"uses": 2, "expires_at": 9.5, "note": "for the lab"}),
        (3.0, "t", "enrolled", alias["phone-2"], {}),
        (4.0, "otto", "token revoked", "t", {}),
        (5.0, "anna", "paused", "run", {"reason": "holiday"}),
        (6.0, "anna", "revoked", alias["phone-2"], {}),
        (7.0, "anna", "rolled back", "version 1", {"to": 0, "discarded": 0, "why": "worse"}),
        (8.0, "anna", "tested", "it", {"first": 1, "second": 2}),
    ]
    assert [line.number for line in lines] == list(range(1, 11))
    assert list(lines[-1].details) == ["first", "second"], "one way to write what the hash is of"


def test_a_devices_alias_is_its_own_and_nothing_that_could_be_guessed(store: Store) -> None:
    for number in range(3):
        store.devices.enrol(f"phone-{number}", b"s" * 32, 2.0)
        store.devices.revoke(f"phone-{number}", 3.0, by="anna")
    aliases = [entry.subject for entry in store.audit.entries() if entry.action == "revoked"]
    assert len(set(aliases)) == 3
    assert [re.fullmatch("[0-9a-f]{16}", alias) is not None for alias in aliases] == [True] * 3


def test_the_state_directory_is_its_owners_alone(place: Place, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    place.open()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700  # it holds the run's key


def test_a_run_keeps_its_phase_and_when_it_started(store: Store, place: Place) -> None:
    assert store.phase() == ("created", "")
    store.set_phase("paused", "holiday", 3.0, by="anna")
    assert store.started_at(10.0) == 10.0
    again = place.reopen()
    assert again.phase() == ("paused", "holiday")
    assert again.started_at(20.0) == 10.0


def test_arrivals_are_counted_and_asked_for_from_the_highest_that_was_seen(store: Store) -> None:
    first, second = update(store), update(store, b"other")
    store.updates.accept([first])
    ((seen, record),) = store.updates.arrived(0)
    assert record == first[0]
    assert store.updates.arrived(seen) == []
    store.updates.accept([second])
    assert [record for _, record in store.updates.arrived(seen)] == [second[0]]
    store.versions.commit(version(1), [MergedUpdate(first[0].assignment, 0, 1.0)])
    assert [record for _, record in store.updates.arrived(0)] == [second[0]]


def test_one_holder_at_a_time_has_the_lease(store: Store) -> None:
    assert not store.lease.lost
    store.lease.release()
    assert store.lease.current() is None
    assert not store.lease.renew(60.0), "nobody has taken it"
    epoch = store.lease.take("one", 60.0)
    assert epoch is not None
    assert [store.lease.take(other, 60.0) for other in ("two", "a third")] == [None, None]
    assert store.lease.take("one", 60.0) == epoch, "it may not have heard that it has it"
    store.lease.announce("one.example.org:8770")
    assert store.lease.renew(60.0)
    holder = store.lease.current()
    assert holder is not None
    assert (holder.holder, holder.epoch) == ("one", epoch)
    assert holder.address == "one.example.org:8770"
    store.lease.release()
    assert store.lease.current() is None
    assert store.lease.take("two", 60.0) == epoch + 1
    successor = store.lease.current()
    assert successor is not None
    assert successor.address == "", "the successor says itself where it is"
    store.tokens.add(TokenRecord("t", "d" * 64, None, None, 1.0), by="anna")


@pytest.mark.parametrize("name", ["phone\0", "\ud800", "", "%", "'"])
def test_a_name_that_no_device_can_have_is_the_name_of_none(store: Store, name: str) -> None:
    assert store.devices.find(name) is None
    assert store.devices.secret(name) is None
    if name:
        assert store.devices.page(name, "id", descending=False, offset=0, limit=9) == (0, [])
    assert store.devices.page("", "id", descending=False, offset=0, limit=9, among=[name]) == (0, [])


def test_devices_are_found_and_sorted_alike_in_every_store(store: Store) -> None:
    for name in ("Zeta", "alpha_1", "alpha-2", "Émile"):
        store.devices.enrol(name, b"s" * 32, 1.0)
    store.devices.seen("Zeta", 5.0, {"model": "Pixel 8"})
    store.devices.seen("alpha-2", 3.0, {"model": "x\0y"})

    def page(search: str, order: DeviceOrder = "id", *, descending: bool = False) -> list[str]:
        total, records = store.devices.page(search, order, descending=descending, offset=0, limit=9)
        assert total == len(records)
        return [record.id for record in records]

    assert page("") == ["Zeta", "alpha-2", "alpha_1", "phone-1", "Émile"], "by their bytes"
    assert page("ALPHA") == ["alpha-2", "alpha_1"]
    assert page("alpha_") == ["alpha_1"]
    assert page("pixel") == ["Zeta"]
    assert page("", "last_seen") == ["alpha_1", "phone-1", "Émile", "alpha-2", "Zeta"]
    assert page("", "last_seen", descending=True) == ["Zeta", "alpha-2", "alpha_1", "phone-1", "Émile"]


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_a_store_is_used_from_any_thread_and_nothing_is_left_of_it_once_it_is_closed(place: Place) -> None:
    def use() -> tuple[int, int]:
        store = place.open()
        if store.run() is None:
            fill(store)
        with ThreadPoolExecutor(2) as threads:
            given = list(threads.map(lambda content: update(store, content), (b"one", b"two")))
            threads.submit(store.updates.accept, given).result()
            threads.submit(store.collect).result()
        place.close()
        return threading.active_count(), open_files()

    # Of other servers in this process a thread or a connection may come or go meanwhile.
    for first, second, third in zip(use(), use(), use(), strict=True):
        assert not first < second < third
