"""Whether a device may run a program: the run's Ed25519 signature, hashes, serial numbers."""

from .verify import check_files, check_runtime, check_signature, signed_bytes, verify_program

__all__ = ["check_files", "check_runtime", "check_signature", "signed_bytes", "verify_program"]
