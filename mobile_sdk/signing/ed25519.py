"""
Verify Ed25519 signatures (RFC 8032, section 5.1.7) in pure Python.

Python's standard library cannot, and a device should not need a compiled library for one signature per
program. Verifying handles no secret, so it needs not run in constant time; signing is not here.

Strict where implementations differ:

* encodings of R and A must be canonical and S below the group's order, so nobody can turn a signature
  into another valid one;
* the equation is ``[S]B = R + [k]A`` without the cofactor, which is what OpenSSL checks;
* public keys of small order are refused: one signature of such a key can fit many messages, and no
  honest signer has one. Keys with a small-order component beside an honest one pass, as in OpenSSL.
"""

from __future__ import annotations

import functools
import hashlib

__all__ = ["verify"]

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)

# Extended homogeneous coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, x*y = T/Z.
Point = tuple[int, int, int, int]

NEUTRAL: Point = (0, 1, 1, 0)


# A device asks about the same program on every trip, and the answer costs a phone some time.
@functools.lru_cache(maxsize=32)
def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """
    Whether ``signature`` (64 bytes) over ``message`` was made with the key of ``public_key`` (32 bytes).

    Args:
        public_key: 32 bytes; others give false.
        message: what was signed.
        signature: 64 bytes; others give false.

    """
    if len(public_key) != 32 or len(signature) != 64:
        return False
    a, r = _decode(public_key), _decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L or _is_neutral(_double(_double(_double(a)))):
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    k = int.from_bytes(digest, "little") % L
    return _equal(_combine(s, BASE, k, _negate(a)), r)


def _decode(data: bytes) -> Point | None:
    """The point of a canonical encoding (RFC 8032, section 5.1.3), or None."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if (v * x * x - u) % P != 0:
        x = x * SQRT_MINUS_1 % P
        if (v * x * x - u) % P != 0:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def _add(p: Point, q: Point) -> Point:
    """Sum of two points (RFC 8032, section 5.1.4); complete, so it takes any two."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _double(p: Point) -> Point:
    a, b, c = p[0] * p[0] % P, p[1] * p[1] % P, 2 * p[2] * p[2] % P
    h = a + b
    e, g = h - (p[0] + p[1]) ** 2 % P, a - b
    f = c + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def _negate(p: Point) -> Point:
    return P - p[0], p[1], p[2], P - p[3]


def _combine(s: int, p: Point, k: int, q: Point) -> Point:
    """``[s]p + [k]q``, both scalars in one run of doublings (Straus's method, two bits at a time)."""
    table = [NEUTRAL]
    for j in range(1, 16):  # entry 4i + j is [i]p + [j]q
        table.append(_add(table[j - 1], q) if j % 4 else _add(table[j - 4], p))
    total = NEUTRAL
    for shift in range(254, -2, -2):
        total = _double(_double(total))
        index = 4 * (s >> shift & 3) + (k >> shift & 3)
        if index:
            total = _add(total, table[index])
    return total


def _equal(p: Point, q: Point) -> bool:
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def _is_neutral(p: Point) -> bool:
    return _equal(p, NEUTRAL)


def _base() -> Point:
    point = _decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    assert point is not None
    return point


BASE = _base()
