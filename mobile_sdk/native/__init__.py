"""The native runtime: ExecuTorch behind a C ABI, called through ctypes."""
