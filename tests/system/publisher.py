"""Somebody who publishes releases as fast as a daemon answers, and notes what was acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from system_federation import Daemon

from hanse.cli import client
from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.errors import HanseError
from hanse.core.ids import Digest, Segment, Version, segment
from hanse.core.trust.statements import sign_release

NOTES = segment("notes")  # a model that nothing runs; its releases are all one small file


@dataclass
class Publisher:
    daemon: Daemon
    file: Path
    acknowledged: list[str] = field(default_factory=list)
    number: int = 0
    model: Segment = NOTES

    def upload(self) -> None:
        """The file must be there before a release that names it."""
        self.file.write_bytes(b"a small file")
        digest = str(Digest.of(self.file.read_bytes()))
        size = self.file.stat().st_size
        client.put_blob(self.daemon.home, self.file, digest, size, lambda _: None)

    def run(self) -> None:
        """Until the daemon is gone."""
        try:
            while True:
                self.publish()
        except (HanseError, ConnectionError):
            return

    def publish(self) -> None:
        self.number += 1
        raw = self.manifest(Version(f"1.0.{self.number}"))
        counter = self.daemon.ask("release.prepare", model=self.model)["counter"]
        name = f"{self.model}@1.0.{self.number}"
        envelope = sign_release(name, Digest.of(raw), counter, [self.daemon.operator_key()])
        done = self.daemon.ask(
            "release.publish", manifest=raw.decode(), envelope=envelope.decode(), counter=counter
        )
        self.acknowledged.append(done["release"])

    def manifest(self, version: Version) -> bytes:
        data = self.file.read_bytes()
        name = segment("model.plan")
        file = File(name, Digest.of(data), len(data))
        needs = {"os": "linux", "gpu.compute_capability": "8.7", "tensorrt": "==10.3"}
        variant = Variant(segment("plan"), "tensorrt-plan", name, needs)  # bytes of no known form
        return Manifest(self.model, version, (file,), (variant,), (), ()).encode()


def releases(daemon: Daemon, model: str = NOTES) -> set[str]:
    return {row["release"] for row in daemon.ask("release.list", model=model)["releases"]}
