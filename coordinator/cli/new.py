"""``ftte new``: a project of one's own, which runs as it is made."""

from __future__ import annotations

import argparse
import dataclasses
import keyword
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import CoordinatorError

__all__ = ["KINDS", "add_new_command", "make_project"]

_TEMPLATES = Path(__file__).with_name("templates")

# Pictures of each digit that a new project begins with.
PICTURES = 40


@dataclasses.dataclass(frozen=True)
class Kind:
    """
    What a project begins with.

    ``values`` are put in place of their names in the templates: budgets and goal. ``data_package`` is what brings the
    samples and is not installed with FTTE.
    """

    words: str
    values: dict[str, str]
    data_package: str | None = None

    @property
    def steps(self) -> list[tuple[str, str]]:
        """What to type in the project's folder first, and what it is."""
        # Its files alone are read; what it depends on would move numpy to another version.
        fetch = [(f"pip install --no-deps {self.data_package}", "the samples")] if self.data_package else []
        return [*fetch, ("python -m pytest", "its tests")]


KINDS = {
    "table": Kind("measurements in a table", {"SMALL": "600KB", "LARGE": "1MB", "GOAL": "0.95"}),
    "sensors": Kind("windows of sensors", {"SMALL": "1MB", "LARGE": "4MB", "GOAL": "0.9"}, data_package="aeon"),
    "pictures": Kind("pictures in a folder", {"SMALL": "1MB", "LARGE": "4MB", "GOAL": "0.9"}),
}


def add_new_command(commands: Any) -> None:
    """Register it."""
    command = commands.add_parser("new", help="a project of your own, which runs as it is made")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="its name is the project's")
    words = "; ".join(f"{name}: {kind.words}" for name, kind in KINDS.items())
    command.add_argument("--from", dest="kind", choices=KINDS, default="table", help=f"{words} (default: table)")
    command.set_defaults(handler=_new)


def _new(options: argparse.Namespace, console: Console) -> int:
    files = make_project(options.folder, options.kind)
    print(f"{len(files)} files are in {options.folder}. What to do next:")
    print(f"  cd {options.folder}")
    steps = [*KINDS[options.kind].steps, ("ftte run run.toml", "the run, with four devices on this machine")]
    width = max(len(command) for command, _ in steps) + 5
    for command, words in steps:
        print(f"  {command:{width}}{words}")
    return 0


def make_project(folder: Path, kind: str) -> list[Path]:
    """
    Write the files of a project.

    Args:
        folder: made; its name is the project's, and its package's.
        kind: a key of ``KINDS``.

    Returns:
        The files.

    Raises:
        CoordinatorError: if the name is none that Python can import, or the folder has something in it.

    """
    name = folder.absolute().name
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name) or len(name) > 64:
        raise CoordinatorError(
            f"{name!r} cannot be the name of a project, since Python could not import it: use letters, digits and _"
        )
    if name in ("ftte", "coordinator", "exporters", "mobile_sdk", "tests", "torch", "numpy", "aeon", "sklearn"):
        raise CoordinatorError(f"{name!r} is the name of a package that the project needs: choose another")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CoordinatorError(f"{folder} has something in it already: name a new folder")
    values = {
        "ABOUT": (_TEMPLATES / kind / "about.txt").read_text().strip(),
        "FIRST_STEPS": "\n".join(f"{command:29} # {words}" for command, words in KINDS[kind].steps),
        **KINDS[kind].values,
        "PROJECT": name,
    }
    made = []
    try:
        for origin in (_TEMPLATES / "common", _TEMPLATES / kind):
            for template in sorted(origin.rglob("*.txt")):
                if template.name != "about.txt":
                    made.append(_write(template, template.relative_to(origin), folder, values))
        if kind == "pictures":
            made += _draw_digits(folder / "pictures")
    except OSError as error:
        raise CoordinatorError(f"{folder} cannot be written: {error.strerror}") from error
    return made


def _write(template: Path, where: Path, folder: Path, values: dict[str, str]) -> Path:
    # Templates end in .txt, so that no tool takes them for files of this package.
    path = str(where).removesuffix(".txt").replace("PROJECT", values["PROJECT"])
    target = folder / (".gitignore" if path == "gitignore" else path)
    text = template.read_text()
    for key, value in values.items():
        text = text.replace(key, value)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def _draw_digits(folder: Path) -> list[Path]:
    """Handwritten digits as PNG files, a folder for each."""
    from PIL import Image

    from exporters.zoo.digits_data import load

    made = []
    x, y = load()[0]
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(x[y == digit][:PICTURES]):
            file = folder / str(digit) / f"{number:03}.png"
            Image.fromarray((picture[0] * 255).astype("uint8")).resize((16, 16)).save(file)
            made.append(file)
    return made
