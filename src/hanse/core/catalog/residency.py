"""Where the model files of a release may lie: one rule, for whoever gives and whoever takes.

The publisher signs it into the release (`residency`); the root and each region's officers sign
into the trust where a region's files may go. A file goes to a region only if all of these agree,
for the region that published it as well as for the one that hands it over: so no third region
passes on what the first would not have given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hanse.core.catalog.view import Release
    from hanse.core.trust.members import Members


def may_lie(release: Release, region: str, members: Members) -> bool:
    """Whether its files may be in that region at all, whoever brings them."""
    said = release.manifest.residency
    # Recorded in several regions, by one of them: another's copy of the record is no new limit.
    given = any(members.may_give(log.region, region) for log in release.logs)
    return given and ("*" in said or region in said)


def may_go(release: Release, source: str, target: str, members: Members) -> bool:
    """Whether `source` may hand its files to `target`."""
    return may_lie(release, target, members) and members.may_give(source, target)
