"""A device's own samples. They never leave the device."""

from .base import ArrayDataset, Dataset, SequenceDataset
from .convert import as_dataset
from .folder import FolderDataset
from .load import load_dataset
from .samples import SampleStore
from .usable import check

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
