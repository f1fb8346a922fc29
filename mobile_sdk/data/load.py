"""The dataset that a command line names."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..fields import named_in
from ..references import load_attribute
from ..user_code import say_where_raised
from .base import ArrayDataset, Dataset
from .convert import as_dataset
from .folder import FolderDataset

__all__ = ["load_dataset"]

_CALL = re.compile(r"(?P<module>[\w.]+):(?P<name>\w+)(?P<arguments>\(.*\))?", re.DOTALL)


def load_dataset(source: str) -> Dataset:
    """
    The dataset that a command line names.

    Args:
        source: ``package.module:callable``, called without arguments or with literal ones
            (``package.module:part(3, of=8)``), returning a dataset or a pair of arrays; or a path to
            an ``.npz`` file that holds ``x`` and ``y``, or to a folder of such files.

    Raises:
        DataError: if there is no such thing or it gives something else.

    """
    if source.endswith(".npz"):
        return _load_npz(Path(source))
    if Path(source).is_dir():
        return FolderDataset(source)
    match = _CALL.fullmatch(source)
    if match is None:
        raise DataError(f"{source!r} is neither package.module:callable nor an .npz file nor a folder")
    try:
        function = load_attribute(f"{match['module']}:{match['name']}", "dataset")
    except ValueError as error:
        raise DataError(f"cannot load the dataset {source!r}: {error}") from error
    args, kwargs = _literals(match["arguments"] or "()", source)
    try:
        return as_dataset(function(*args, **kwargs))
    except DataError as error:
        raise DataError(f"{source!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise DataError(f"{source!r} fails {say_where_raised(error)}") from error


def _load_npz(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return ArrayDataset(named_in(arrays, "x"), named_in(arrays, "y"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"cannot read x and y from {path}: {error}") from error


def _literals(text: str, source: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("not a call")
        args = [ast.literal_eval(argument) for argument in call.args]
        kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{source!r}: arguments must be literals such as (3, of=8)") from error
    return args, kwargs
