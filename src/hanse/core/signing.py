"""The one Ed25519 signer and verifier of the federation.

Two verifiers that disagree about one crafted signature split the federation's state (T17),
so nothing else in Hanse verifies Ed25519. OpenSSL checks the equation without cofactor,
refuses S >= L and an R in a second encoding, but lets points of small order pass: under
such a public key one constant signature stands for several messages. Therefore the
encodings of small order are refused here, as a key and as R, before OpenSSL sees them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import exceptions
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hanse.core.errors import InvalidSignature, InvalidSpec

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64

_FIELD_PRIME = 2**255 - 19
_SIGN_BIT = 1 << 255

# The y coordinates of the eight points whose order divides the cofactor, and the two that
# also fit below 2^255 in a second, unreduced encoding.
_SMALL_ORDER_Y = (
    1,  # order 1
    _FIELD_PRIME - 1,  # order 2
    0,  # order 4
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,  # order 8
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,  # order 8
    _FIELD_PRIME,  # 0 again
    _FIELD_PRIME + 1,  # 1 again
)
_SMALL_ORDER = frozenset(
    (y | sign).to_bytes(PUBLIC_BYTES, "little") for y in _SMALL_ORDER_Y for sign in (0, _SIGN_BIT)
)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key pair made from a 32-byte seed, which `repr` does not show."""

    seed: bytes = field(repr=False)
    public: bytes = field(init=False)
    _private: Ed25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise InvalidSpec(
                f"an Ed25519 seed has 32 bytes, not {len(self.seed)}",
                fix="point at the key file that was made for this daemon",
            )
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        object.__setattr__(self, "_private", private)
        object.__setattr__(self, "public", private.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of `data`; equal data give equal bytes (RFC 8032)."""
        return self._private.sign(data)


def admit_public_key(public: bytes) -> None:
    """Refuse a raw public key with which signatures would not bind (`InvalidSignature`).

    A key off the curve passes: it verifies nothing, so the proof of possession that every
    enrolment demands fails for it.
    """
    if len(public) != PUBLIC_BYTES:
        raise InvalidSignature(
            f"an Ed25519 public key has 32 bytes, not {len(public)}",
            fix="send the raw key, without a PEM or DER wrapping",
        )
    if public in _SMALL_ORDER:
        raise InvalidSignature(
            "the public key is a point of small order, which signs for anybody",
            fix="make a new key pair and enrol that",
        )
    if int.from_bytes(public, "little") & ~_SIGN_BIT >= _FIELD_PRIME:
        raise InvalidSignature(
            "the public key is not in its canonical encoding",
            fix="make a new key pair and enrol that",
        )


def verify(public: bytes, signature: bytes, data: bytes) -> None:
    """Return if `signature` (64 bytes) stands for `data` under the raw key `public`.

    Raises `InvalidSignature` otherwise, for a key that `admit_public_key` refuses too.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidSignature(f"an Ed25519 signature has 64 bytes, not {len(signature)}")
    if signature[:32] in _SMALL_ORDER:
        raise InvalidSignature("the signature's R is a point of small order")
    try:
        _admitted(public).verify(signature, data)
    except exceptions.InvalidSignature:
        raise InvalidSignature(
            "the signature does not stand for these bytes under this key",
            fix="fetch the bytes again from another peer; if it persists, check whose key this is",
        ) from None


@lru_cache(maxsize=4096)
def _admitted(public: bytes) -> Ed25519PublicKey:
    """The checked key object; kept, because a peer's key is used for every head it signs."""
    admit_public_key(public)
    return Ed25519PublicKey.from_public_bytes(public)
