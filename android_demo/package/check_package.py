"""
Check what was built, or what gradle resolved, before a phone does.

``python android_demo/package/check_package.py apk FILE [ABI...]`` looks into the app: ABIs, libraries, pages of 16 KB.
``... archive FILE [PROGRAM...]`` looks into ExecuTorch's Android archive: ABIs, pages, the backend, and the kernels
that these programs (``.pte``) call. Each fault is a sentence; the exit code is 1 if there is one.
"""

from __future__ import annotations

import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["apk_faults", "archive_faults", "load_alignments"]

PAGE = 16_384
PHONES = ("arm64-v8a", "armeabi-v7a")
WIDE = ("arm64-v8a", "x86_64")
_LIBRARY = re.compile(r"(?:lib|jni)/([^/]+)/(lib[^/]+\.so)")
_OPERATOR = re.compile(rb"(?:aten|dim_order_ops|quantized_decomposed)::[a-z_0-9]+")
# .note.android.ident: sizes and kind of the note, its owner, the API level, and the NDK that linked the library.
_NDK = re.compile(rb"\x08\0\0\0[\x44\x84]\0\0\0\x01\0\0\0Android\0.{4}r(\d+)([a-z]?)[^\0]*\0", re.DOTALL)
_CXX = "libc++_shared.so"
_LOAD = 1


def load_alignments(elf: bytes) -> list[int]:
    """
    The alignments of the segments that are loaded, in bytes.

    Raises:
        ValueError: if it is no little-endian ELF file.

    """
    if elf[:4] != b"\x7fELF" or elf[5] != 1:
        raise ValueError("no little-endian ELF file")
    if elf[4] == 2:
        offset, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
        place, form = 48, "<Q"
    else:
        offset, size, count = struct.unpack_from("<I", elf, 28)[0], *struct.unpack_from("<HH", elf, 42)
        place, form = 28, "<I"
    headers = [offset + index * size for index in range(count)]
    return [
        struct.unpack_from(form, elf, header + place)[0]
        for header in headers
        if struct.unpack_from("<I", elf, header)[0] == _LOAD
    ]


def apk_faults(path: Path, abis: tuple[str, ...] = PHONES) -> list[str]:
    """What is wrong with the app for these ABIs, a sentence each."""
    faults = []
    found: dict[str, set[str]] = {}
    releases: dict[str, dict[str, tuple[int, str]]] = {}
    with zipfile.ZipFile(path) as archive:
        for abi, name, content in _libraries(archive):
            found.setdefault(abi, set()).add(name)
            faults += _pages(abi, name, content)
            if match := _NDK.search(content):
                releases.setdefault(abi, {})[name] = (int(match[1]), match[2].decode())
    for abi, by_name in releases.items():
        faults += _old_cxx(abi, by_name)
    for abi in abis:
        if not any(name.startswith("libpython3") for name in found.get(abi, ())):
            faults.append(f"{path.name} has no Python for {abi}: look at android.archs")
        if abi in WIDE and "libexecutorch.so" not in found.get(abi, ()):
            faults.append(f"{path.name} has no libexecutorch.so for {abi}: look at android.gradle_dependencies")
    for abi in sorted(found.keys() - set(abis)):
        faults.append(
            f"{path.name} has libraries for {abi}, and no Python: it would install there and crash; exclude them in "
            "android.add_packaging_options"
        )
    return faults


def archive_faults(path: Path, programs: list[Path]) -> list[str]:
    """What is wrong with ExecuTorch's archive, a sentence each."""
    faults = []
    content: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        if "classes.jar" not in archive.namelist():
            faults.append(f"{path.name} has no classes.jar: it is no Android archive")
        for abi, name, library in _libraries(archive):
            faults += _pages(abi, name, library)
            content[abi] = content.get(abi, b"") + library
    for abi in WIDE:
        if abi not in content:
            faults.append(f"{path.name} has no library for {abi}")
            continue
        if b"XnnpackBackend" not in content[abi]:
            faults.append(f"{path.name} lacks XNNPACK for {abi}: take the archive without a suffix")
        for program in programs:
            for operator in sorted(set(_OPERATOR.findall(program.read_bytes()))):
                if operator not in content[abi]:
                    faults.append(f"{path.name} lacks the kernel {operator.decode()} for {abi}, which {program} calls")
    return faults


def _libraries(archive: zipfile.ZipFile) -> Iterator[tuple[str, str, bytes]]:
    for name in archive.namelist():
        if match := _LIBRARY.fullmatch(name):
            yield match[1], match[2], archive.read(name)


def _old_cxx(abi: str, releases: dict[str, tuple[int, str]]) -> list[str]:
    """Of the C++ library, which python-for-android and fbjni both bring, one stays: it has to be the newer one."""
    own = releases.get(_CXX)
    newest = max(releases, key=lambda name: releases[name])
    if own is None or own >= releases[newest]:
        return []
    say = "r{}{}".format
    return [
        f"lib/{abi}/{_CXX} is of NDK {say(*own)}, and {newest} of {say(*releases[newest])}: gradle picked the older "
        "one; leave out that archive's in android.add_packaging_options"
    ]


def _pages(abi: str, name: str, content: bytes) -> list[str]:
    if abi not in WIDE or name.startswith("libpybundle"):  # which is an archive with the name of a library
        return []
    try:
        least = min(load_alignments(content), default=PAGE)
    except (ValueError, struct.error):
        return [f"lib/{abi}/{name} is no library"]
    if least < PAGE:
        return [f"lib/{abi}/{name} is aligned to {least} bytes; phones with pages of 16 KB need {PAGE}"]
    return []


def main(words: list[str]) -> int:
    """The command; the exit code."""
    kind, path = words[0], Path(words[1])
    if kind == "apk":
        faults = apk_faults(path, tuple(words[2:]) or PHONES)
    else:
        faults = archive_faults(path, [Path(word) for word in words[2:]])
    print("\n".join(faults) or f"{path.name} is as it should be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
