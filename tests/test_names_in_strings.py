"""A name of ours in a string is the name of something that is there: a rename would break it silently."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("coordinator", "exporters", "mobile_sdk")
# A dotted name of one of our packages, alone or before ":attribute".
NAME = re.compile(rf"(?P<module>(?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?::(?P<attribute>\w+)(?:\(.*\))?)?")
# File names in documentation or data, whose first part happens to be a package's name.
FILES = re.compile(r".*\.(?:toml|json|sqlite|py|md|html|wasm|svg|png|csv|new|lock)")


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Every string literal that is no docstring, with its line."""
    tree = ast.parse(path.read_text())
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.lineno, node.value


def exists(module: str, attribute: str | None) -> bool:
    """Whether ``module`` is a module, or an attribute of one, as a logger's or a patch's name may be."""
    try:
        if importlib.util.find_spec(module) is not None:
            return attribute is None or hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        pass
    parent, _, name = module.rpartition(".")
    return parent in PACKAGES or ("." in parent and exists(parent, name))


def sources() -> list[Path]:
    folders = [ROOT / package for package in (*PACKAGES, "benchmarks")]
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*.py")
        if not {"build", "lib"} & set(path.relative_to(ROOT).parts)
    )


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_name_in_a_string_names_something(path: Path) -> None:
    for line, text in strings(path):
        match = NAME.fullmatch(text)
        if match is not None and not FILES.fullmatch(text):
            assert exists(match["module"], match["attribute"]), f"{path}:{line} names {text!r}, which is not there"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_logger_and_no_loaded_module_is_looked_up_by_a_name_in_a_string(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call | ast.Subscript):
            continue
        target = ast.unparse(node.func if isinstance(node, ast.Call) else node.value)
        if target.endswith(("getLogger", "sys.modules.get", "sys.modules", "import_module")):
            inside = [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
            ours = [text for text in inside if isinstance(text, str) and text.split(".")[0] in PACKAGES]
            assert not ours, f"{path}:{node.lineno} looks up {ours[0]!r} by its name: use the object"


IMPORT = re.compile(
    rf"^\s*from (?P<module>(?:{'|'.join(PACKAGES)})(?:\.\w+)*) import (?P<names>[\w ,]+?)\s*(?:[#;].*)?$", re.MULTILINE
)


def scripts() -> list[Path]:
    """Tests hold programs in strings, which run in processes of their own."""
    return [path for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__)]


@pytest.mark.parametrize("path", scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_program_in_a_string_imports_is_there(path: Path) -> None:
    for line, text in strings(path):
        for match in IMPORT.finditer(text):
            for name in (word.split(" as ")[0].strip() for word in match["names"].split(",")):
                module = match["module"]
                there = importlib.util.find_spec(module) and hasattr(importlib.import_module(module), name)
                assert there or importlib.util.find_spec(f"{module}.{name}"), (
                    f"{path}:{line} imports {name} from {module}, where it is not"
                )
