"""What people and CI jobs sign, as DSSE envelopes that ride on events.

A daemon's online key says *when and where*; these signatures say *that it may be*. A stolen
daemon key can hold a release, but cannot make one, start one or lift a hold (T13).
"""

from __future__ import annotations

from collections.abc import Sequence

from hanse.core.dsse import sign_envelope
from hanse.core.ids import Digest
from hanse.core.reading import canonical_json
from hanse.core.signing import SigningKey

RELEASE_TYPE = "application/vnd.in-toto+json"
CONTROL_TYPE = "application/vnd.hanse.control+json"


def release_statement(name: str, release: Digest, counter: int) -> bytes:
    """An in-toto statement whose subject is the manifest, by digest."""
    return canonical_json(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name, "digest": {"sha256": release.hex}}],
            "predicateType": "https://hanse.dev/release/v1",
            "predicate": {"counter": counter},
        }
    )


def rollout_statement(model: str, spec: bytes) -> bytes:
    """The plan is signed by digest, so that an event carries it once."""
    return control_statement("start", model, spec=str(Digest.of(spec)))


def control_statement(action: str, model: str, **scope: str | int) -> bytes:
    return canonical_json({"action": action, "model": model, **scope})


def approval_statement(model: str, spec: str, stage: str, step: int) -> bytes:
    """One approve step of exactly one plan, by the plan's digest."""
    return control_statement("approve", model, spec=spec, stage=stage, step=step)


def sign_release(name: str, release: Digest, counter: int, keys: Sequence[SigningKey]) -> bytes:
    return sign_envelope(RELEASE_TYPE, release_statement(name, release, counter), keys)


def sign_control(statement: bytes, keys: Sequence[SigningKey]) -> bytes:
    return sign_envelope(CONTROL_TYPE, statement, keys)
