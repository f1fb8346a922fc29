"""
What travels, in as few bytes as it takes: updates on their way up, versions on their way down.

Both directions are safetensors files, which any tool of that ecosystem opens. Devices and coordinator share this code.
"""

from .differences import apply_difference, make_difference
from .format import UpdateFormat
from .grid import Grid
from .packing import pack, pack_text, unpack, unpack_text
from .steps import SteppedVector, Steps
from .updates import check_packing, decode_update, decode_vector, encode_update, most_bytes

__all__ = [
    "Grid",
    "SteppedVector",
    "Steps",
    "UpdateFormat",
    "apply_difference",
    "check_packing",
    "decode_update",
    "decode_vector",
    "encode_update",
    "make_difference",
    "most_bytes",
    "pack",
    "pack_text",
    "unpack",
    "unpack_text",
]
