"""Updates on their way up: in memory as long as there is enough of it, else in files; nothing of them is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.updates import partial_uploads as uploads
from coordinator.updates.partial_uploads import Uploads
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

REF = ArtifactRef(Sha256("ab" * 32), 3000)


def test_what_does_not_fit_into_memory_goes_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MEMORY_BYTES", 2500)
    parts = Uploads(tmp_path)
    first, second = parts.begin("phone-1", REF, 0.0), parts.begin("phone-2", REF, 0.0)
    first.append(b"1" * 1500)
    second.append(b"2" * 1000)
    assert not first.should_spool(0.0)
    assert not second.should_spool(0.0)
    second.append(b"2" * 1000)
    assert second.should_spool(0.0)
    second.spool(0.0)
    assert not first.should_spool(0.0), "there is room again"
    first.append(b"1" * 1500)
    second.append(b"3" * 1000)
    assert first.content() == b"1" * 3000
    assert second.content() == b"2" * 2000 + b"3" * 1000
    for upload in (first, second):
        upload.drop()
    assert list(tmp_path.iterdir()) == []
    third = parts.begin("phone-3", REF, 0.0)
    third.append(b"4" * 2500)
    assert not third.should_spool(0.0), "what is forgotten takes no memory"


def test_a_slow_upload_goes_to_its_file_now_and_then(tmp_path: Path) -> None:
    upload = Uploads(tmp_path).begin("phone-1", REF, 0.0)
    upload.append(b"1" * 1000)
    assert not upload.should_spool(uploads.SPOOL_SECONDS)
    assert upload.should_spool(uploads.SPOOL_SECONDS + 1)
    upload.spool(6.0)
    upload.append(b"1" * 1000)
    assert not upload.should_spool(6.0 + uploads.SPOOL_SECONDS), "it was written a moment ago"
    assert upload.should_spool(6.0 + uploads.SPOOL_SECONDS + 1)
    upload.append(b"1" * 1000)
    assert not upload.should_spool(100.0), "it has come whole"
    assert Uploads(tmp_path).begin("phone-1", REF, 7.0).size == 1000, "over a restart"
