"""Which cosignatures make a log head final: a C2SP tlog-policy text.

    witness eu/9f…c2 fed.example/eu/9f…c2/w+1a2b3c4d+BJ…=  https://witness.example/
    group region/eu any eu/9f…c2
    group regions 2 region/eu region/us region/ap
    quorum regions

Every line refers to names of earlier lines, and a name is a member of one group only. So the
groups form a tree, and what follows from it is exact: who is missing, and how many witnesses
must lie before two inconsistent heads could both be final.

`n` regions of one witness each and a quorum `q` tolerate `2q - n - 1` liars. The default
tolerates the classic third, hence q = (n + f) // 2 + 1 with f = (n - 1) // 3. A bare majority
of an odd `n` would tolerate none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from hanse.core import limits
from hanse.core.errors import InvalidSpec, Rejected, TooLarge
from hanse.core.ids import MemberId, Segment
from hanse.core.log.note import COSIGNATURE_V1, ED25519, VerifierKey

NONE = "none"
_TOP = "regions"
_FORBIDDEN = re.compile(r"[^\t\n\x20-\x7e\x80-\U0010ffff]")
_SPACE = re.compile(r"[ \t]+")
_COUNT = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Witness:
    """One key that may cosign. Its `name` has a meaning in this policy alone."""

    name: str
    key: VerifierKey
    url: str = ""
    """Where it takes C2SP add-checkpoint requests; empty if it is nowhere to be asked."""


@dataclass(frozen=True, slots=True)
class Group:
    """Has witnessed a head when at least `needed` of its members have."""

    name: str
    needed: int
    members: tuple[str, ...]
    """Names of witnesses and of earlier groups."""


@dataclass(frozen=True)
class Policy:
    """A verified policy text, read. Without slots: what follows from it is asked for often."""

    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str
    logs: tuple[VerifierKey, ...] = ()

    @property
    def requires_nothing(self) -> bool:
        """`quorum none`: there is no finality, and nothing may wait for it."""
        return self.quorum == NONE

    def satisfied(self, signers: Collection[VerifierKey]) -> bool:
        """Whether these keys, whose cosignatures were verified, are a quorum.

        Keys count, not names. Never true under `quorum none`, where nothing is final.
        """
        return self.quorum in self._witnessed(signers)

    def missing(self, signers: Collection[VerifierKey] = ()) -> tuple[str, ...]:
        """The members of the quorum that have not witnessed yet, for whoever waits."""
        seen = self._witnessed(signers)
        top = self._by_name.get(self.quorum)
        members = top.members if top else () if self.requires_nothing else (self.quorum,)
        return tuple(name for name in members if name not in seen)

    @property
    def needed(self) -> tuple[int, int]:
        """How many of how many members of the quorum must have witnessed; (0, 0) for none."""
        top = self._by_name.get(self.quorum)
        return (
            (top.needed, len(top.members)) if top else (0, 0) if self.requires_nothing else (1, 1)
        )

    @cached_property
    def liars_tolerated(self) -> int:
        """Witnesses that may lie before two inconsistent heads of one log can both be final.

        -1: it takes no liar at all, as when any one of two witnesses is enough.
        """
        return self._cheapest(lambda g: 2 * g.needed - len(g.members)) - 1

    @cached_property
    def losses_tolerated(self) -> int:
        """Witnesses that may be out of reach, whichever they are, while heads become final."""
        return self._cheapest(lambda g: len(g.members) - g.needed + 1) - 1

    @cached_property
    def cosignatures_needed(self) -> int:
        """How many witnesses the smallest quorum has."""
        return self._cheapest(lambda g: g.needed)

    @cached_property
    def keys(self) -> tuple[VerifierKey, ...]:
        return tuple(w.key for w in self.witnesses)

    @cached_property
    def _by_name(self) -> Mapping[str, Group]:
        return {group.name: group for group in self.groups}

    def _witnessed(self, signers: Collection[VerifierKey]) -> set[str]:
        publics = {key.public for key in signers}
        seen = {w.name for w in self.witnesses if w.key.public in publics}
        for group in self.groups:
            if sum(member in seen for member in group.members) >= group.needed:
                seen.add(group.name)
        return seen

    def _cheapest(self, members_hit: Callable[[Group], int]) -> int:
        """Witnesses to corrupt for the quorum, if a group takes `members_hit` of its members.

        Exact, since every witness stands in one place of the tree.
        """
        cost = dict.fromkeys((w.name for w in self.witnesses), 1)
        for group in self.groups:
            hit = max(0, members_hit(group))
            cost[group.name] = sum(sorted(cost[member] for member in group.members)[:hit])
        return cost.get(self.quorum, 0)


def parse_policy(text: str) -> Policy:
    """Read a policy. Raises `InvalidSpec` with the line that is wrong, or `TooLarge`."""
    if len(text.encode("utf-8", "surrogatepass")) > limits.POLICY_BYTES_MAX:
        raise TooLarge("the witness policy is too long", fix="keep it under 64 KiB")
    if _FORBIDDEN.search(text):
        raise InvalidSpec("the witness policy holds a control character other than tab, newline")
    if text and not text.endswith("\n"):
        raise InvalidSpec(
            "the last line of the witness policy is cut off", fix="end it with newline"
        )
    reader = _Lines()
    for number, line in enumerate(text.split("\n"), 1):
        words = [word for word in _SPACE.split(line) if word]
        if not words or words[0].startswith("#"):
            continue
        try:
            reader.take(words)
        except Rejected as error:
            raise InvalidSpec(
                f"witness policy, line {number}: {error.message}", fix=error.fix
            ) from None
    return reader.policy()


class _Lines:
    """The lines read so far. Every refusal names what is wrong; the caller adds where."""

    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorum = ""
        self._names: set[str] = set()
        self._grouped: set[str] = set()

    def take(self, words: list[str]) -> None:
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self.logs.append(_key(vkey, ED25519, self.logs))
                _url(url)
            case ["witness", name, vkey, *url] if len(url) <= 1:
                key = _key(vkey, COSIGNATURE_V1, [w.key for w in self.witnesses])
                self.witnesses.append(Witness(self._define(name), key, _url(url)))
            case ["group", name, needed, *members] if members:
                self.groups.append(self._group(name, needed, members))
            case ["quorum", name]:
                self._set_quorum(name)
            case _:
                raise InvalidSpec(
                    f"{' '.join(words)[:80]!r} is no policy line",
                    fix="use log, witness, group or quorum as C2SP tlog-policy describes them",
                )

    def policy(self) -> Policy:
        if not self.quorum:
            raise InvalidSpec("the witness policy has no quorum line", fix="add one: quorum <name>")
        policy = Policy(tuple(self.witnesses), tuple(self.groups), self.quorum, tuple(self.logs))
        if policy.cosignatures_needed >= limits.NOTE_SIGNATURES_MAX:
            raise InvalidSpec(
                f"no quorum has fewer than {policy.cosignatures_needed} witnesses",
                fix=f"a note holds {limits.NOTE_SIGNATURES_MAX - 1} cosignatures: name fewer",
            )
        return policy

    def _define(self, name: str) -> str:
        if name == NONE or name in self._names:
            raise InvalidSpec(f"the name {name[:80]!r} is taken", fix="give it another name")
        self._names.add(name)
        return name

    def _group(self, name: str, needed: str, members: list[str]) -> Group:
        for member in members:
            if member not in self._names:
                raise InvalidSpec(f"{member[:80]!r} is not defined on a line before this one")
            if member in self._grouped:
                raise InvalidSpec(f"{member[:80]!r} is a member of a group already")
            self._grouped.add(member)
        counts = {"any": 1, "all": len(members)}
        if needed not in counts and not _COUNT.fullmatch(needed):
            raise InvalidSpec(f"{needed[:80]!r} is neither any, all nor a number from 1")
        count = counts.get(needed) or int(needed)
        if count > len(members):
            raise InvalidSpec(f"{count} of {len(members)} members can never witness")
        return Group(self._define(name), count, tuple(members))

    def _set_quorum(self, name: str) -> None:
        if self.quorum:
            raise InvalidSpec("there is a quorum line already", fix="keep one of the two")
        if name != NONE and name not in self._names:
            raise InvalidSpec(f"{name[:80]!r} is not defined on a line before this one")
        self.quorum = name


def _key(vkey: str, kind: int, known: Iterable[VerifierKey]) -> VerifierKey:
    key = VerifierKey.parse(vkey)
    if key.kind != kind:
        raise InvalidSpec(
            f"the key of {key.name!r} has signature type {key.kind:#04x}, not {kind:#04x}",
            fix="logs sign with 0x01, witnesses cosign with 0x04",
        )
    if any(key.public == other.public for other in known):
        # Two names of one key would let one witness count twice.
        raise InvalidSpec(f"the key of {key.name!r} stands here already under another name")
    return key


def _url(words: list[str]) -> str:
    url = words[0] if words else ""
    if url and not url.startswith(("https://", "http://")):
        raise InvalidSpec(f"{url[:80]!r} is no URL", fix="begin it with https://")
    return url


# -- what a federation starts with ---------------------------------------------------


def witness_key(federation: str, region: str, member: MemberId, public: bytes) -> VerifierKey:
    """The name and key under which a member's daemon cosigns; `public` is its witness key."""
    return VerifierKey(f"{federation}/{region}/{member}/w", COSIGNATURE_V1, public)


def default_policy(federation: Segment, keys: Mapping[Segment, Mapping[MemberId, bytes]]) -> str:
    """The policy of a federation whose daemons' witness keys stand in `keys` by region.

    One witness a region: that of its lowest member id. With "any one of two", two honest
    daemons of one region could vouch for two histories, and no lie would be needed. At most
    `POLICY_REGIONS_MAX` regions, so that a quorum fits on one note.
    """
    chosen = [(region, *min(keys[region].items())) for region in sorted(keys) if keys[region]]
    del chosen[limits.POLICY_REGIONS_MAX :]
    n = len(chosen)
    if n < 2:
        return f"quorum {NONE}\n"
    lines = []
    for region, member, public in chosen:
        vkey = witness_key(federation, region, member, public).encode()
        lines += [
            f"witness {region}/{member} {vkey}",
            f"group region/{region} any {region}/{member}",
        ]
    named = " ".join(f"region/{region}" for region, _, _ in chosen)
    return "\n".join([*lines, f"group {_TOP} {default_quorum(n)} {named}", f"quorum {_TOP}"]) + "\n"


def default_quorum(n: int) -> int:
    """How many of `n` regions must witness: enough for a third of them to lie."""
    return (n + (n - 1) // 3) // 2 + 1
