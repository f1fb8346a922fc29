#!/usr/bin/env bash
# Build the SDK's wheel for aarch64 on another Linux machine, and run the conformance suite with it under qemu; and see
# that merges there have the hashes that they have here.
#
#   scripts/aarch64.sh wheel [DIST]      cross-build into DIST (default: dist)
#   scripts/aarch64.sh test [CASE ...]   wheel, arm64 root, suite; the cases default to some of the zoo
#   scripts/aarch64.sh merge             arm64 root; versions' hashes, there and here
#
# Needs g++-aarch64-linux-gnu, qemu-user-static, debootstrap and, for Debian's root, its archive keyring. No mount and no
# chroot: programs of the root run by qemu with the root's libraries. What was downloaded is kept in .aarch64.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$root/.aarch64
python=$root/.venv/bin/python
version=$(sed -n 's/^EXECUTORCH_VERSION = "\(.*\)"$/\1/p' mobile_sdk/manifest.py)
fetch=("$python" -m pip download --quiet --only-binary=:all: --python-version 3.11 --implementation cp
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64)

need() {
    for command in "$@"; do
        command -v "$command" >/dev/null || {
            echo "$command is missing: apt-get install g++-aarch64-linux-gnu qemu-user-static debootstrap" >&2
            exit 1
        }
    done
}

wheel() {
    need aarch64-linux-gnu-g++
    if [ ! -d "$work/executorch-$version" ]; then
        "${fetch[@]}" --no-deps --dest "$work/wheels" "executorch==$version"
        "$python" -m zipfile -e "$work/wheels/executorch-$version"-*aarch64.whl "$work/executorch-$version"
    fi
    CXX=aarch64-linux-gnu-g++ FTTE_EXECUTORCH=$work/executorch-$version "$python" -m pip wheel --quiet \
        --no-build-isolation --no-deps --no-cache-dir --wheel-dir "$1" ./mobile_sdk
    ls -l "$1"/ftte_mobile_sdk-*_aarch64.whl
}

arm_root() {
    need qemu-aarch64-static debootstrap
    [ -x "$work/root/usr/bin/python3.11" ] && return
    # The first stage unpacks the base system; Python comes as one of the packages that it leaves packed.
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 bookworm "$work/root" >"$work/debootstrap.log"
    for package in "$work"/root/var/cache/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$work/root"
    done
}

suite() {
    "$python" -m tests.conformance.cases "$work/cases" "$@"
    rm -rf "$work/site" "$work/suite"
    "${fetch[@]}" --dest "$work/site-wheels" "numpy>=2" "websockets>=15" "pytest>=8"
    for archive in "$work"/site-wheels/*.whl "$work"/dist/ftte_mobile_sdk-*_aarch64.whl; do
        "$python" -m zipfile -e "$archive" "$work/site"
    done
    # Nothing of this checkout but the suite: the SDK is the wheel's.
    mkdir -p "$work/suite/tests"
    touch "$work/suite/tests/__init__.py"
    cp -r tests/conformance "$work/suite/tests/"
    cd "$work/suite"
    FTTE_CASES=$work/cases PYTHONPATH=$work/site PYTHONDONTWRITEBYTECODE=1 \
        qemu-aarch64-static -L "$work/root" "$work/root/usr/bin/python3.11" -m pytest -q -p no:cacheprovider -rs tests/conformance/test_engines.py
}

merge() {
    rm -rf "$work/merge-site"
    "${fetch[@]}" --dest "$work/merge-wheels" "numpy>=2" scipy
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --platform any --dest "$work/merge-wheels" "websockets>=15"
    for archive in "$work"/merge-wheels/*.whl; do
        "$python" -m zipfile -e "$archive" "$work/merge-site"
    done
    "$python" tests/coordinator/merge/digests.py >"$work/here.json"
    PYTHONPATH=$root:$work/merge-site PYTHONDONTWRITEBYTECODE=1 \
        qemu-aarch64-static -L "$work/root" "$work/root/usr/bin/python3.11" tests/coordinator/merge/digests.py >"$work/there.json"
    cmp "$work/here.json" "$work/there.json"
    echo "$("$python" -c 'import json, sys; print(len(json.load(open(sys.argv[1]))))' "$work/there.json") hashes, all equal"
}

mkdir -p "$work"
case "${1:-}" in
wheel) wheel "${2:-dist}" ;;
test)
    shift
    [ "$#" -gt 0 ] || set -- mlp digits-half text cifar
    rm -rf "$work/dist" "$work/cases"
    wheel "$work/dist"
    arm_root
    suite "$@"
    ;;
merge)
    arm_root
    merge
    ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
