"""A plan with a metric that Prometheus counts: orders, of which some fail."""

from __future__ import annotations

from typing import Any

from hand_federation import MODEL, Federation

from hanse.core.ids import Digest
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.spec import parse_spec
from hanse.core.rollout.table import State

BAD = 'sum(orders_failed_total{release="$release"})'
TOTAL = 'sum(orders_total{release="$release",region="$region"})'
ORDERS: dict[str, Any] = {
    "name": "orders",
    "test": "ratio",
    "prometheus": {"bad": BAD, "total": TOTAL},
    "margin": 1.25,
    "provenBelow": 2.0,
}


def body(**metric: Any) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"setWeight": 20},
        {"analysis": {"templates": ["orders"], "minSamples": 1}},
        {"setWeight": 100},
    ]
    return {
        "stages": [{"name": "all", "regions": ["eu-north"], "steps": steps}],
        "templates": {"orders": {"alpha": 0.05, "metrics": [ORDERS | metric]}},
        "freshness": {"within": "5m", "telemetry": "20s"},
    }


def spec(**metric: Any) -> RolloutSpec:
    return parse_spec(
        {
            "apiVersion": "hanse.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": "r-2", "model": MODEL, "generation": 2},
            "spec": {
                "release": str(Digest.of(b"new")),
                "predecessor": str(Digest.of(b"old")),
                **body(**metric),
            },
        }
    )


def state(federation: Federation) -> tuple[State, str, str]:
    (place,) = (
        e.progress
        for e in federation.node("eu-north").region.executions.values()
        if e.plan.name == "r-2"
    )
    return place.state, place.reason, place.why
