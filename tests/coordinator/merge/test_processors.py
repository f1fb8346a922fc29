"""The next version is the same, bit for bit, whatever the processor: BLAS and numpy take other paths on each."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("digests.py")

# What every processor must give. A change of the arithmetic changes these, and nothing else may.
KNOWN = [
    "f45795c13bf63d0d1feeb75edab9ed08779e875683899779e09aa2f9b5c7c2f8",
    "5b6e4b0311cc45036699466843f2df135ba009d2b69f9029759b83a55133475a",
    "56e2ba7e29066c07160ff408f4b05e7383361310f3e0046a7194399ae706f9de",
    "df0ee6176457f9d424a648daca01787fbc83c2cf794adbc3623c76483bba7397",
    "19ef64a059228265f39f45e6f985328beebd57418b4cfe11ae9f8780c17a33e0",
    "19ef64a059228265f39f45e6f985328beebd57418b4cfe11ae9f8780c17a33e0",
    "748362eeae5aa84d215e2b70d496ee93940a94d275506c27d4fec5c8d613a00f",
    "964565542e398e5ca722474096a60f56d8f992509d68a370c3cb2c10ff051f78",
    "53694f036fdb8ec10338de3a378f79a201b85e5cab3a8977ada90788edd9b5a2",
    "5f808d286da6531a9c12c06f892976f8b185d4467423ac4f9394520917cb1b6a",
    "83bc375a52004a304abf7a5e9e7dcdf8ed60f5542fc4e9f941397a126155524f",
    "edc66b6513d7d767f7e0c5ab228bd7a37c0ece128920330561bb413daedccd16",
    "61a8784bb445591646a5275c5ccdef4f1ff3211c08fbd433b7d5930b06efbea1",
    "096866085943cdd4a7aa2ecd45647856035800fb13ebab7b32f2014dc892956d",
    "4fda26de7325252bee3f95ec081853f2903145d9a94d280a045ce5b7e06b9ffd",
    "ec6209ffab914fb3d4846df8e07491397a74abdadb5671ace8551570f0f8daf1",
    "5c5a0d4eaf8ae8222cdc5225f9d572ba57c35ef0b88b47fde1152a3db2ebb86b",
    "13631a1e4e817dc73da746359e5f13bd801349a55bc84d4f8647dcadec0d6b9b",
    "50c6226b1bb0ed331b7ea49421395a8ac3e227be71055b4139655e4607c5af86",
    "db579995ff81b1f5f0379f4d6325c0f3f08d774d52c2047838d9267da0b481e3",
    "cc19f1dfc6310fbe9379446ceb2c3c0d8a7981cfd67a04d53a8049679bbc7e27",
    "611d6ad6a85ff0c171b5e0c7de7f42a49e594f6509e3a05f54d10241c8ea8d72",
    "2fb7f41312a6b3f7fbe5859b84fd27e8432b6d319e194d8e6c1fd7dea028e3eb",
    "8eb289781c47a06ff90cbf33d40712448ac249b3e85b6a5647a77748c2ae9f1d",
    "518cb097ec3d4b1de6128640e07590ed723e0a110022aa5147cf423745cb3221",
    "67f0d5c2b5da272ad8aa9005033b06bf0ef578c5ffcc42b827ecf0a9abd6094e",
    "622587805e985d98ef93182f2c6b60a1d4788fc9031e39c2fa2c3ee45ffbce8e",
    "72673c416a1fe81d22e906065f77958795c0a9abbe4df93d81d7c05ef0f798d2",
    "3a94b2087562338716f4ac812e705878ea0ec7d5038b4aade0e22737beff0d8e",
    "6656b79964ec91393c6163610568b471f2b2cf6a017afc69b1cc378fd3082c4f",
    "2f947a8c9941fc6f7137eaee49e71b747dd9911d3a99487f581c4f4be5dbe74b",
]

PATHS = [
    {"OPENBLAS_CORETYPE": "Prescott"},
    {"OPENBLAS_CORETYPE": "Sandybridge"},
    {"OPENBLAS_CORETYPE": "Haswell"},
    {"OPENBLAS_CORETYPE": "SkylakeX"},
    {"OPENBLAS_CORETYPE": "Zen"},
    {"OPENBLAS_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"},
]


def digests(path: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM],
        env=os.environ | path,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0 or "Illegal instruction" in done.stderr:
        pytest.skip("this processor cannot take that path")
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path.values()))
def test_every_path_of_the_processor_gives_the_same_versions(path: dict[str, str]) -> None:
    assert digests(path) == KNOWN


def test_the_path_that_this_process_takes_gives_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(PROGRAM), run_name="__main__")
    assert json.loads(capsys.readouterr().out) == KNOWN
