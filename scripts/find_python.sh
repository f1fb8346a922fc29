#!/bin/sh
# Print the Python to set up the project with: $PYTHON if it is set, else the first fit one of the PATH, the version that is tested most first.
# Fit are the versions that torch 2.13.0 and executorch 1.5.1 have wheels for, with the modules venv and ensurepip.
fits() {
    "$1" -c '
import sys
assert (3, 11) <= sys.version_info < (3, 15) and sys.implementation.name == "cpython"
import ensurepip, venv' >/dev/null 2>&1
}

version() {
    "$1" -c 'import platform; print(platform.python_implementation(), platform.python_version())' 2>/dev/null
}

if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" && { echo "$PYTHON"; exit 0; }
    echo "make: PYTHON=$PYTHON is ${PYTHON:+$(version "$PYTHON" || echo 'no Python')}; CPython 3.11 to 3.14 with venv is needed" >&2
    exit 1
fi
for name in python3.11 python3.12 python3.13 python3.14 python3 python; do
    if command -v "$name" >/dev/null && fits "$name"; then
        echo "make: setting up with $(command -v "$name") ($(version "$name"))" >&2
        echo "$name"
        exit 0
    fi
    command -v "$name" >/dev/null && found="$found $name ($(version "$name"))"
done
echo "make: CPython 3.11 to 3.14 with venv is needed (Debian: apt-get install python3 python3-venv); found:${found:- none}" >&2
echo "make: if it is elsewhere: make PYTHON=/path/to/python3.13" >&2
exit 1
