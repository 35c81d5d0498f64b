"""What a daemon answers to questions: pure functions of its node, read and never changed.

Every answer has the keys that `hanse.cli.shapes` lists. Ages are by the local monotonic clock
where we saw something happen ourselves, and by the author's clock where it was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hanse.core.node import Clock, Node
from hanse.daemon.queries.approvals import rollout_awaiting
from hanse.daemon.queries.explaining import rollout_explain
from hanse.daemon.queries.healing import heal_status
from hanse.daemon.queries.lineage import lineage
from hanse.daemon.queries.planning import rollout_plan
from hanse.daemon.queries.releases import release_list, release_prepare, release_show
from hanse.daemon.queries.rollouts import holds, rollout_prepare, rollout_status
from hanse.daemon.queries.status import counters, status
from hanse.daemon.queries.uses import release_uses
from hanse.daemon.queries.why import why

Query = Callable[[Node, Clock, Mapping[str, Any]], dict[str, Any]]

QUERIES: Final[Mapping[str, Query]] = {
    "status": status,
    "counters": counters,
    "release.list": release_list,
    "release.show": release_show,
    "release.prepare": release_prepare,
    "release.uses": release_uses,
    "heal.status": heal_status,
    "rollout.prepare": rollout_prepare,
    "rollout.plan": rollout_plan,
    "rollout.status": rollout_status,
    "rollout.explain": rollout_explain,
    "rollout.awaiting": rollout_awaiting,
    "holds": holds,
    "lineage": lineage,
    "why": why,
}
"""By verb of the control socket. All raise `NotFound`, `Conflict` or `InvalidSpec`."""
