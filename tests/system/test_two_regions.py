"""Two regions as real processes: a witness outside, and what each says of itself to the other."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from c2sp_witness import Witness, serve
from digit_releases import paths
from system_federation import MODEL, Federation, done
from tour.federation import free_ports

from hanse.core.ids import Origin, Segment, member_id
from hanse.core.log.policy import witness_key
from hanse.core.signing import SigningKey
from hanse.core.trust import chain
from hanse.daemon.private_files import read_seed
from hanse.daemon.trust_folder import add_file, read_files

pytestmark = pytest.mark.system
HERE, THERE = "eu-north", "us-east"


def witnessed(federation: Federation, witness: Witness) -> None:
    """The next trust version: any two of the regions and the witness outside make heads final."""
    homes = [daemon.home for daemon in federation.daemons.values()]
    known = chain.replay(read_files(homes[0] / "trust"))
    lines = [f"witness outside {witness.vkey}"]
    for member in known.current.members:
        assert member.witness_key is not None
        name = known.current.federation
        key = witness_key(name, member.region, member.id, member.witness_key)
        lines.append(f"witness {member.region} {key.encode()}")
    text = "\n".join([*lines, f"group all 2 outside {HERE} {THERE}", "quorum all"]) + "\n"
    version = known.current.version + 1
    following = replace(known.current, version=version, witness_policy=text)
    raw = chain.sign(following, (SigningKey(read_seed(homes[0] / "keys/root.key")),), known)
    for home in homes:
        for number, file in enumerate((*known.files, raw), start=1):
            add_file(home / "trust", number, file)


def test_a_region_alone_is_final_with_a_witness_outside_and_agrees_with_the_other_later(
    folder: Path,
) -> None:
    federation, (port,) = Federation(folder), free_ports(1)
    federation.found(nodes=(), regions=(HERE, THERE))
    here, there = federation.daemons[HERE], federation.daemons[THERE]
    public = here.key.public
    origin = str(Origin(Segment("harbour"), Segment(HERE), member_id(public), 1))
    witness = Witness({origin: public})
    witnessed(federation, witness)

    def sizes() -> tuple[int, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/logs", timeout=10) as answer:
            index = json.load(answer)
        return index["logs"].get(origin, 0), index["final"].get(origin, 0)

    with serve(witness) as url:
        settings = (here.home / "hanse.toml").read_text()
        for name, value in (("witness_url", url), ("audit_listen", f"127.0.0.1:{port}")):
            assert f'# {name} = ""' in settings
            settings = settings.replace(f'# {name} = ""', f'{name} = "{value}"')
        (here.home / "hanse.toml").write_text(settings)
        try:
            here.start()
            federation.until("eu-north answers", lambda: here.ask("status"))
            model = (paths()["v1"], "-n", MODEL, "-v", "1.0.0", "--outcome", "label:label")
            done("release", "publish", *model, home=here.home)
            size, _ = sizes()
            assert size >= 2
            federation.until("all of it is final", lambda: sizes()[1] >= size)
            assert set(witness.answered) <= {200, 409}

            there.start()
            federation.until(
                "each knows how the other is",
                lambda: all(len(d.ask("status")["members"]) == 2 for d in (here, there)),
                within_s=30,
            )
            federation.until(
                "both computed the same", lambda: here.state_digest == there.state_digest
            )
            for daemon in (here, there):
                assert not any(each["differs"] for each in daemon.ask("status")["members"])
        finally:
            federation.close()
