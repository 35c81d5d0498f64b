"""Two verifiers of Ed25519 side by side: ours, and libsodium's by way of PyNaCl (T17).

Libsodium is at least as strict about small order and second encodings; where the two differ on
bytes that somebody could send, honest daemons with other libraries would part ways.
"""

from __future__ import annotations

from random import Random

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from hanse.core.errors import InvalidSignature
from hanse.core.signing import SigningKey, verify

L = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19


def ours(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        verify(public, signature, data)
    except InvalidSignature:
        return False
    return True


def theirs(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        VerifyKey(public).verify(data, signature)
    except BadSignatureError:
        return False
    return True


def mutated(rng: Random) -> tuple[bytes, bytes, bytes]:
    """A key, a signature and data, changed where it might not matter, or not at all."""
    key, data = SigningKey(rng.randbytes(32)), rng.randbytes(rng.randrange(100))
    public, signature = bytearray(key.public), bytearray(key.sign(data))
    match rng.randrange(8):
        case 0:
            signature[rng.randrange(64)] ^= 1 << rng.randrange(8)
        case 1:
            public[rng.randrange(32)] ^= 1 << rng.randrange(8)
        case 2:  # S + L: malleable
            s = int.from_bytes(signature[32:], "little") + L * rng.randrange(1, 8)
            signature[32:] = s.to_bytes(32, "little") if s < 2**256 else signature[32:]
        case 3:
            signature[63] ^= 0xE0
        case 4:
            signature[31] ^= 0x80
        case 5:
            public[31] ^= 0x80
        case 6:
            data += b"\0"
        case _:
            pass
    return bytes(public), bytes(signature), data


def check(rng: Random) -> bool:
    """Whether this one stands; raises where the two verifiers differ."""
    public, signature, data = mutated(rng)
    verdict = ours(public, signature, data)
    assert verdict == theirs(public, signature, data), (
        f"{public.hex()} {signature.hex()} {data.hex()}: ours {verdict}"
    )
    return verdict
