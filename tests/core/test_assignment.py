"""Assignments: signed, canonical, bounded, and never guessed at."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hanse.core.assignment import (
    ASSIGNMENT_BYTES_MAX,
    Assignment,
    ModelAssignment,
    Source,
    open_assignment,
    parse_assignment,
    signed_bytes,
)
from hanse.core.audience import Audience, Rule
from hanse.core.errors import InvalidSignature, InvalidSpec, Rejected, TooLarge
from hanse.core.ids import Digest, segment
from hanse.core.reading import canonical_json
from hanse.core.signing import SigningKey

OLD, NEW = b'{"v":"1"}', b'{"v":"2"}'
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = SigningKey(bytes(range(32)))


def example() -> Assignment:
    return Assignment(
        segment("acme"),
        segment("eu-north"),
        epoch=2,
        serial=17,
        models=(
            ModelAssignment(
                segment("ocr-rec"),
                active=Digest.of(OLD),
                candidate=Digest.of(NEW),
                rollout="r-17",
                generation=12,
                weight_bp=500,
                shadow_bp=1000,
                salt="r-17/12",
                last_good=(Digest.of(OLD),),
                barred=(Digest.of(b"bad"),),
                slow_ms=40,
                audience=Audience("customer", (Rule("device", "in", ("dock",)),)),
            ),
        ),
        releases={Digest.of(OLD): OLD, Digest.of(NEW): NEW},
        sources=(Source("eu-north:7421", segment("eu-north"), PEM),),
        edge_ca_pem=PEM,
    )


def changed(**fields: object) -> bytes:
    return canonical_json({**json.loads(example().encode()), **fields})


def changed_model(**fields: object) -> bytes:
    document = json.loads(example().encode())
    document["models"][0].update(fields)
    return canonical_json(document)


def test_what_was_written_is_what_is_read() -> None:
    raw = example().encode()
    assert open_assignment(raw, KEY.sign(signed_bytes(raw)), KEY.public) == example()


def test_a_region_without_an_edge_ca_says_nothing_of_one() -> None:
    raw = replace(example(), edge_ca_pem="").encode()
    assert b"edge_ca_pem" not in raw
    assert parse_assignment(raw).edge_ca_pem == ""


def test_bytes_are_not_read_before_their_signature_holds() -> None:
    raw = example().encode()
    for signature in (KEY.sign(raw), bytes(64), b""):
        with pytest.raises(InvalidSignature):
            open_assignment(raw, signature, KEY.public)
    with pytest.raises(InvalidSignature):
        open_assignment(b"not json", KEY.sign(b"other"), KEY.public)


def test_a_manifest_that_is_not_its_digest_is_refused() -> None:
    raw = changed(releases={str(Digest.of(OLD)): OLD.decode(), str(Digest.of(NEW)): "{}"})
    with pytest.raises(InvalidSpec, match="does not have this digest"):
        parse_assignment(raw)


def test_every_named_release_comes_with_its_manifest() -> None:
    with pytest.raises(InvalidSpec, match="needs"):
        parse_assignment(changed(releases={str(Digest.of(OLD)): OLD.decode()}))


@pytest.mark.parametrize(
    "raw",
    [
        example().encode() + b" ",
        example().encode().replace(b'"serial":17', b'"serial": 17'),
        changed(extra=1),
        changed(schema=2),
        changed(serial=-1),
        changed(serial=True),
        changed(sources=[{"address": "a", "region": "b", "tls_cert_pem": "x"}]),
        changed(edge_ca_pem=""),
        changed(edge_ca_pem="x"),
        changed(edge_ca_pem=None),
        changed(edge_ca_pem=PEM + " " * 8192),
        changed_model(weight_bp=10_001),
        changed_model(candidate=None),
        changed_model(active="sha256:zz"),
        changed_model(active=5),
        changed_model(slow_ms=0),
        b'{"region":"\\ud800"}',
        b"[]",
        b"",
    ],
)
def test_a_document_that_is_not_exactly_right_is_rejected(raw: bytes) -> None:
    with pytest.raises(Rejected):
        parse_assignment(raw)


def test_one_model_stands_once() -> None:
    model = example().models[0]
    with pytest.raises(InvalidSpec, match="once"):
        replace(example(), models=(model, model)).encode()


def test_an_assignment_is_bounded() -> None:
    with pytest.raises(TooLarge):
        parse_assignment(b" " * (ASSIGNMENT_BYTES_MAX + 1))
