"""Regions that can be cut off for real: one network namespace each, and a router between them.

What crosses a cut vanishes in the router, as in a broken network: no end is told. The test
itself, and users, reach daemons and nodes by Unix sockets, which no network can cut.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product


def run(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def possible() -> bool:
    """Whether this machine lets us make one."""
    tag = f"hanse-try-{os.getpid()}"
    try:
        run("netns", "add", tag)
        run("netns", "del", tag)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@dataclass
class Regions:
    """Made by `with`, and gone after it. Region `i` has the network `prefix.i.0/24`."""

    names: Sequence[str]
    tag: str = field(default_factory=lambda: f"{os.getpid() % 10**6}")
    _cut: list[tuple[str, str]] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        return f"10.{64 + int(self.tag) % 128}"

    @property
    def router(self) -> str:
        return f"hanse-{self.tag}-router"

    def host(self, name: str) -> str:
        return f"{self.prefix}.{self.names.index(name) + 1}.1"

    def inside(self, name: str) -> tuple[str, ...]:
        """The words that run a command in that region."""
        return ("ip", "netns", "exec", f"hanse-{self.tag}-{self.names.index(name) + 1}")

    def __enter__(self) -> Regions:
        run("netns", "add", self.router)
        self._in(self.router, "link", "set", "lo", "up")
        exec_ = ("ip", "netns", "exec", self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        subprocess.run(exec_, check=True)
        for i in range(1, len(self.names) + 1):
            namespace = f"hanse-{self.tag}-{i}"
            run("netns", "add", namespace)
            self._in(namespace, "link", "set", "lo", "up")
            self._wire(i, namespace)
            self._in(namespace, "route", "add", "default", "via", f"{self.prefix}.{i}.254")
        return self

    def __exit__(self, *_: object) -> None:
        for i in range(1, len(self.names) + 1):
            run("netns", "del", f"hanse-{self.tag}-{i}")
        run("netns", "del", self.router)

    def cut(self, inside: Iterable[str]) -> None:
        """Nothing passes between these regions and the others, either way."""
        inside = list(inside)
        outside = [name for name in self.names if name not in inside]
        for one, other in product(inside, outside):
            for pair in ((one, other), (other, one)):
                self._rule("add", *pair)
                self._cut.append(pair)

    def heal(self) -> None:
        while self._cut:
            self._rule("del", *self._cut.pop())

    def _rule(self, deed: str, source: str, target: str) -> None:
        a, b = (f"{self.host(name).rsplit('.', 1)[0]}.0/24" for name in (source, target))
        self._in(self.router, "rule", deed, "from", a, "to", b, "blackhole")

    def _wire(self, i: int, namespace: str) -> None:
        """A cable between the router and that namespace."""
        ends = (f"hr{self.tag}-{i}", f"he{self.tag}-{i}")
        run("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        run("link", "set", ends[0], "netns", self.router)
        self._up(self.router, ends[0], f"{self.prefix}.{i}.254/24")
        run("link", "set", ends[1], "netns", namespace)
        self._up(namespace, ends[1], f"{self.prefix}.{i}.1/24")

    def _up(self, namespace: str, device: str, address: str) -> None:
        self._in(namespace, "addr", "add", address, "dev", device)
        self._in(namespace, "link", "set", device, "up")

    def _in(self, namespace: str, *words: str) -> None:
        run("-n", namespace, *words)
