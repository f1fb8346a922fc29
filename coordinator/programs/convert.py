"""A version's weights in torch's formats, made by a process of its own: the coordinator never loads torch."""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

from mobile_sdk.protocol.texts import printable

from ..errors import CoordinatorError

__all__ = ["FORMATS", "Format", "convert_weights"]

Format = Literal["pt", "pte"]
FORMATS: tuple[Format, ...] = ("pt", "pte")

# Lowering a large model takes minutes.
SECONDS = 600.0

# Characters of an error that are shown.
MOST_WORDS = 500


async def convert_weights(task: str, form: Format, weights: bytes) -> bytes:
    """
    A state dict for ``torch.load`` (``pt``), or a program for inference (``pte``).

    Args:
        task: ``package.module:task``.
        form: the format.
        weights: the version's safetensors file.

    Raises:
        CoordinatorError: if it cannot be made, saying why.

    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coordinator.programs.convert", task, form),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            content, errors = await process.communicate(weights)
    except TimeoutError:
        raise CoordinatorError(f"the .{form} file was not made within {SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = (errors.decode(errors="replace").strip().splitlines() or ["for no reason that it gave"])[-1]
        raise CoordinatorError(f"the .{form} file cannot be made: {printable(last)[:MOST_WORDS]}")
    return content


def _main(task: str, form: str) -> int:
    from pathlib import Path

    from exporters.program.inference import inference_program, state_dict
    from mobile_sdk.errors import FtteError

    sys.path.insert(0, str(Path.cwd()))
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a user's task prints is no part of the file
    try:
        content = (state_dict if form == "pt" else inference_program)(task, sys.stdin.buffer.read())
    except FtteError as error:
        print(error, file=sys.stderr)
        return 1
    output.write(content)
    output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
