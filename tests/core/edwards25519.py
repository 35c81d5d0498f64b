"""Ed25519 by the book, slow and only for tests: the second opinion on the one verifier.

Affine arithmetic on the twisted Edwards curve of RFC 8032, points as (x, y).
"""

from __future__ import annotations

from hashlib import sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ZERO = (0, 1)

Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P
    return x, y


def multiply(scalar: int, point: Point) -> Point:
    total = ZERO
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def negate(point: Point) -> Point:
    return -point[0] % P, point[1]


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode(raw: bytes) -> Point | None:
    """The point as lax verifiers read it (y reduced, -0 taken); None off the curve."""
    number = int.from_bytes(raw, "little")
    y, sign = number % 2**255 % P, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return (-x % P if x & 1 != sign else x), y


BASE = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
assert BASE is not None


def is_canonical(raw: bytes) -> bool:
    point = decode(raw)
    return point is not None and encode(point) == raw


def order_class(point: Point) -> str:
    """`small`: the order divides 8; `prime`: it is L; `mixed`: a multiple of both."""
    if multiply(8, point) == ZERO:
        return "small"
    return "prime" if multiply(L, point) == ZERO else "mixed"


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + public + message).digest(), "little") % L


def equation_holds(public: bytes, signature: bytes, k: int, *, cofactor: int = 1) -> bool:
    """[cofactor](S*B - k*A) == [cofactor]R, with no check of any encoding or range."""
    a, r = decode(public), decode(signature[:32])
    if a is None or r is None:
        return False
    s = int.from_bytes(signature[32:], "little")
    left = add(multiply(s, BASE), negate(multiply(k, a)))
    return multiply(cofactor, left) == multiply(cofactor, r)


def strict_verdict(public: bytes, signature: bytes, message: bytes) -> bool:
    """Canonical, not of small order, S < L, and the equation without the cofactor."""
    for raw in (public, signature[:32]):
        point = decode(raw)
        if point is None or not is_canonical(raw) or order_class(point) == "small":
            return False
    if int.from_bytes(signature[32:], "little") >= L:
        return False
    return equation_holds(public, signature, challenge(signature[:32], public, message))
