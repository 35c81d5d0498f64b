"""Founding, asking and admitting, on real folders with real keys."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hanse.core.dsse import sign_envelope
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import (
    Conflict,
    InvalidName,
    InvalidSignature,
    InvalidSpec,
    NotPermitted,
    Rejected,
)
from hanse.core.log.policy import parse_policy
from hanse.core.reading import canonical_json
from hanse.core.signing import SigningKey
from hanse.core.trust import chain
from hanse.daemon import ceremony, config, join_request
from hanse.daemon.private_files import read_seed
from hanse.daemon.trust_folder import add_file, chain_beside, read_files
from hanse.rpc import certificates, tls

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def founder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("founder") / "eu"
    ceremony.init(home, "acme", "eu-north", "127.0.0.1:7420", "", NOW)
    return home


def root_of(home: Path) -> tuple[SigningKey, ...]:
    return ceremony.root_keys([home / "keys/root.key"])


def ask(home: Path, founder: Path, region: str = "us-east", port: int = 7421, **more) -> bytes:
    return ceremony.join(
        home, read_files(founder / "trust"), region, f"127.0.0.1:{port}", "", NOW, **more
    )


def resigned(request: bytes, home: Path, **changes: str) -> bytes:
    """The request with other claims, signed by the keys that it names."""
    payload = json.loads(strict_base64(json.loads(request)["payload"]) or b"")
    payload.update(changes)
    keys = [SigningKey(read_seed(home / f"keys/{name}.key")) for name in ("daemon", "witness")]
    return sign_envelope(join_request.REQUEST_TYPE, canonical_json(payload), keys)


def test_a_founded_federation_has_one_member_with_the_pinned_certificate(founder):
    current = chain.replay(read_files(founder / "trust")).current
    assert (current.federation, current.version) == ("acme", 1)
    (member,) = current.members
    assert member.key == SigningKey(read_seed(founder / "keys/daemon.key")).public
    peer = tls.peer_of_certificate(member.tls_cert_pem.encode())
    assert tls.check_member(peer, current) is member
    assert current.keys("publisher", "eu-north") == current.keys("release-manager")


def test_a_founded_home_can_be_loaded(founder):
    loaded = config.load(founder)
    assert (loaded.federation, loaded.region, loaded.advertise) == (
        "acme",
        "eu-north",
        "127.0.0.1:7420",
    )


def test_private_files_and_folders_are_for_their_owner_alone(founder):
    for key in founder.glob("keys/*.key"):
        assert key.stat().st_mode & 0o777 == 0o600, key
    assert founder.stat().st_mode & 0o777 == 0o700
    assert (founder / "keys").stat().st_mode & 0o777 == 0o700
    assert not list(founder.rglob(".new-*"))


def test_nothing_is_ever_overwritten(founder):
    before = {p: p.read_bytes() for p in founder.rglob("*") if p.is_file()}
    with pytest.raises(Conflict, match="never overwritten"):
        ceremony.init(founder, "acme", "eu-north", "127.0.0.1:1", "", NOW)
    with pytest.raises(Conflict):
        ask(founder, founder)
    assert {p: p.read_bytes() for p in founder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("federation", "region", "listen"),
    [
        ("Acme", "eu", "h:1"),
        ("acme", "../eu", "h:1"),
        ("acme", "eu", "7420"),
        ("acme", "eu", "h:70000"),
        ("acme", "eu", "http://h:1"),
    ],
)
def test_a_wrong_name_or_address_makes_no_files(tmp_path, federation, region, listen):
    with pytest.raises(InvalidName):
        ceremony.init(tmp_path / "home", federation, region, listen, "", NOW)
    assert not (tmp_path / "home").exists()


def test_an_admitted_daemon_stands_in_the_next_members_file(founder, tmp_path):
    request = ask(tmp_path / "us", founder)
    files = read_files(founder / "trust")
    raw = ceremony.admit(request, files, root_of(founder), NOW)
    current = chain.replay((*files, raw)).current
    assert current.version == 2
    assert [m.region for m in current.members] == ["eu-north", "us-east"]
    assert current.region("us-east") is not None


def test_regions_witness_each_other_from_the_second_one_on(founder, tmp_path):
    files = list(read_files(founder / "trust"))
    assert parse_policy(chain.replay(tuple(files)).current.witness_policy).requires_nothing
    for port, region in enumerate(("us-east", "ap-south"), start=7421):
        request = ask(tmp_path / region, founder, region, port)
        files.append(ceremony.admit(request, files, root_of(founder), NOW))
        policy = parse_policy(chain.replay(tuple(files)).current.witness_policy)
        assert not policy.requires_nothing
    assert len(policy.witnesses) == 3


def test_a_policy_that_somebody_wrote_stays(founder, tmp_path):
    files = list(read_files(founder / "trust"))
    files.append(ceremony.admit(ask(tmp_path / "us", founder), files, root_of(founder), NOW))
    known = chain.replay(tuple(files))
    own = replace(known.current, version=3, witness_policy="quorum none\n")
    files.append(chain.sign(own, root_of(founder), known))
    request = ask(tmp_path / "ap", founder, "ap-south", 7422)
    files.append(ceremony.admit(request, files, root_of(founder), NOW))
    assert chain.replay(tuple(files)).current.witness_policy == "quorum none\n"


def test_a_request_that_another_key_signed_is_refused(founder, tmp_path):
    request = json.loads(ask(tmp_path / "us", founder))
    payload = strict_base64(request["payload"])
    stranger = SigningKey(bytes(31) + b"\1")
    forged = sign_envelope(join_request.REQUEST_TYPE, payload or b"", [stranger])
    with pytest.raises(InvalidSignature):
        join_request.read_request(forged)


def test_a_request_whose_certificate_names_another_is_refused(founder, tmp_path):
    request = ask(tmp_path / "us", founder)
    with pytest.raises(NotPermitted, match="names another"):
        join_request.read_request(resigned(request, tmp_path / "us", region="eu-north"))


def test_a_second_certificate_does_not_slip_in_with_the_first(founder, tmp_path):
    request = ask(tmp_path / "us", founder)
    both = (tmp_path / "us/keys/tls.crt").read_text() + (
        tmp_path / "us/keys/edge-ca.crt"
    ).read_text()
    with pytest.raises(InvalidSpec, match="exactly one"):
        join_request.read_request(resigned(request, tmp_path / "us", tls=both))


def test_an_edge_ca_must_be_a_ca(founder, tmp_path):
    request = ask(tmp_path / "us", founder)
    leaf = certificates.issue(
        "spiffe://acme/us-east/edge/n1",
        ceremony.read_edge_ca(tmp_path / "us"),
        certificates.from_now(NOW, certificates.LIFE),
    ).cert_pem.decode()
    with pytest.raises(InvalidSpec, match="edge_ca"):
        join_request.read_request(resigned(request, tmp_path / "us", edge_ca=leaf))


@pytest.mark.parametrize("signer", ["daemon", "witness"])
def test_both_keys_of_a_request_prove_that_they_are_there(founder, tmp_path, signer):
    request = json.loads(ask(tmp_path / "us", founder))
    key = SigningKey(read_seed(tmp_path / f"us/keys/{signer}.key"))
    payload = strict_base64(request["payload"]) or b""
    alone = sign_envelope(join_request.REQUEST_TYPE, payload, [key])
    with pytest.raises(InvalidSignature, match="two keys"):
        join_request.read_request(alone)


def test_a_changed_request_is_refused(founder, tmp_path):
    request = json.loads(ask(tmp_path / "us", founder))
    payload = (strict_base64(request["payload"]) or b"").replace(b"7421", b"7422")
    request["payload"] = to_base64(payload)
    with pytest.raises(Rejected):
        join_request.read_request(canonical_json(request))


def test_an_address_is_listed_once(founder, tmp_path):
    with pytest.raises(Conflict, match="is the address of"):
        ask(tmp_path / "us", founder, port=7420)
    assert not (tmp_path / "us").exists()
    request = ask(tmp_path / "us", founder)
    forged = resigned(request, tmp_path / "us", address="127.0.0.1:7420")
    with pytest.raises(Conflict, match="is the address of"):
        ceremony.admit(forged, read_files(founder / "trust"), root_of(founder), NOW)


def test_nobody_is_admitted_twice(founder, tmp_path):
    request, files = ask(tmp_path / "us", founder), read_files(founder / "trust")
    raw = ceremony.admit(request, files, root_of(founder), NOW)
    with pytest.raises(Conflict, match="a member already"):
        ceremony.admit(request, (*files, raw), root_of(founder), NOW)


def test_a_request_for_another_federation_is_refused(founder, tmp_path):
    ceremony.init(tmp_path / "other", "umbrella", "eu-north", "127.0.0.1:7", "", NOW)
    request = ask(tmp_path / "us", tmp_path / "other")
    with pytest.raises(Conflict, match="umbrella"):
        ceremony.admit(request, read_files(founder / "trust"), root_of(founder), NOW)


def test_another_root_key_admits_nobody(founder, tmp_path):
    request = ask(tmp_path / "us", founder)
    with pytest.raises(InvalidSignature):
        ceremony.admit(request, read_files(founder / "trust"), [SigningKey(bytes(31) + b"\2")], NOW)


def test_a_second_daemon_of_a_region_must_carry_its_edge_ca(founder, tmp_path):
    with pytest.raises(Conflict, match="edge CA"):
        ask(tmp_path / "two", founder, region="eu-north")
    assert not (tmp_path / "two").exists()
    authority = ceremony.read_edge_ca(founder)
    request = ask(tmp_path / "two", founder, region="eu-north", edge_ca=authority)
    files = read_files(founder / "trust")
    raw = ceremony.admit(request, files, root_of(founder), NOW)
    current = chain.replay((*files, raw)).current
    assert [r.name for r in current.regions] == ["eu-north"]
    assert len(current.members) == 2


def test_a_request_with_another_edge_ca_for_a_known_region_is_refused(founder, tmp_path):
    authority = ceremony.read_edge_ca(founder)
    request = ask(tmp_path / "two", founder, region="eu-north", edge_ca=authority)
    span = certificates.from_now(NOW, datetime.timedelta(days=9))
    other = certificates.authority("spiffe://acme/eu-north/edge-ca/x", span, "x")
    forged = resigned(request, tmp_path / "two", edge_ca=other.cert_pem.decode())
    with pytest.raises(Conflict, match="edge CA"):
        ceremony.admit(forged, read_files(founder / "trust"), root_of(founder), NOW)


def test_edge_cas_of_two_regions_have_different_names(founder, tmp_path):
    ask(tmp_path / "us", founder)
    from cryptography import x509

    names = {
        x509.load_pem_x509_certificate((home / "keys/edge-ca.crt").read_bytes()).subject
        for home in (founder, tmp_path / "us")
    }
    assert len(names) == 2


def test_a_trust_folder_takes_the_same_file_twice_and_no_other(tmp_path):
    folder = tmp_path / "trust"
    add_file(folder, 1, b"one")
    add_file(folder, 1, b"one")
    with pytest.raises(Conflict):
        add_file(folder, 1, b"two")
    assert read_files(folder) == (b"one",)


def test_a_gap_in_the_trust_folder_is_named(tmp_path):
    add_file(tmp_path, 1, b"one")
    add_file(tmp_path, 3, b"three")
    with pytest.raises(Rejected, match=r"00002\.json is missing"):
        read_files(tmp_path)


def test_a_chain_is_found_by_home_folder_or_file(founder):
    expected = read_files(founder / "trust")
    for path in (founder, founder / "trust", founder / "trust/00001.json"):
        assert chain_beside(path) == expected
