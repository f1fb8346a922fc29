"""A device's own samples. They never leave the device."""

from .base import ArrayDataset, Dataset, SequenceDataset
from .check import check
from .convert import as_dataset
from .folder import FolderDataset
from .load import load_dataset
from .samples import SampleStore

__all__ = [
    "ArrayDataset",
    "Dataset",
    "FolderDataset",
    "SampleStore",
    "SequenceDataset",
    "as_dataset",
    "check",
    "load_dataset",
]
