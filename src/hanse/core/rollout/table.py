"""The states of one region's part of a rollout, and every transition there is.

One row a state; what is not in the table does not happen. A stimulus is chosen from the facts by
`stimuli.py`, which offers them in order of weight: a row that does not know one ignores it.

    pending > gated > prefetching > shadowing, weighting, paused, analyzing, ... > soaking > healthy

- Every live row carries all alarms, so a release can be stopped from anywhere in one tick.
- `rollingBack` carries none: traffic is back already, and only the nodes' own reports end it.
- `healthy` can only become `quarantined`; the other ends are final for this generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    PENDING = "pending"
    GATED = "gated"
    PREFETCHING = "prefetching"
    SHADOWING = "shadowing"
    WEIGHTING = "weighting"
    PAUSED = "paused"
    ANALYZING = "analyzing"
    AWAITING = "awaitingApproval"
    SOAKING = "soaking"
    HEALTHY = "healthy"
    HELD = "held"
    ROLLING_BACK = "rollingBack"
    ROLLED_BACK = "rolledBack"
    SUPERSEDED = "superseded"
    QUARANTINED = "quarantined"


class Stimulus(StrEnum):
    BARRED = "barred"
    ABORT = "abort"
    HARM = "harm"
    SUPERSEDE = "supersede"
    OVERDUE = "overdue"
    HOLD = "hold"
    RESUME = "resume"
    BEGIN = "begin"
    GATE_MET = "gateMet"
    TO_SHADOW = "toShadow"
    TO_WEIGHT = "toWeight"
    TO_PAUSE = "toPause"
    TO_ANALYSIS = "toAnalysis"
    TO_APPROVAL = "toApproval"
    TO_SOAK = "toSoak"
    PROMOTE = "promote"
    ON_TARGET = "onTarget"


Row = Mapping[Stimulus, State | None]

_ALARMS: Final[Row] = {
    Stimulus.BARRED: State.QUARANTINED,
    Stimulus.ABORT: State.ROLLING_BACK,
    Stimulus.HARM: State.ROLLING_BACK,
    Stimulus.SUPERSEDE: State.SUPERSEDED,
    Stimulus.OVERDUE: State.ROLLING_BACK,
}
_LIVE: Final[Row] = {**_ALARMS, Stimulus.HOLD: State.HELD}
_BEFORE_USERS: Final[Row] = {
    Stimulus.TO_SHADOW: State.SHADOWING,
    Stimulus.TO_WEIGHT: State.WEIGHTING,
    Stimulus.TO_PAUSE: State.PAUSED,
    Stimulus.TO_ANALYSIS: State.ANALYZING,
    Stimulus.TO_APPROVAL: State.AWAITING,
}
_ONWARD: Final[Row] = {**_BEFORE_USERS, Stimulus.TO_SOAK: State.SOAKING}

TABLE: Final[Mapping[State, Row]] = {
    State.PENDING: {**_LIVE, Stimulus.BEGIN: State.GATED},
    State.GATED: {**_LIVE, Stimulus.GATE_MET: State.PREFETCHING},
    State.PREFETCHING: {**_LIVE, **_BEFORE_USERS},
    State.SHADOWING: {**_LIVE, **_BEFORE_USERS},
    State.WEIGHTING: {**_LIVE, **_ONWARD},
    State.PAUSED: {**_LIVE, **_ONWARD},
    State.ANALYZING: {**_LIVE, **_ONWARD},
    State.AWAITING: {**_LIVE, **_ONWARD},
    State.SOAKING: {**_LIVE, Stimulus.PROMOTE: State.HEALTHY},
    # None: back to the state that was left, which only the progress knows.
    State.HELD: {**_ALARMS, Stimulus.RESUME: None},
    State.ROLLING_BACK: {Stimulus.ON_TARGET: State.ROLLED_BACK},
    State.HEALTHY: {Stimulus.BARRED: State.QUARANTINED, Stimulus.HARM: State.ROLLING_BACK},
    State.ROLLED_BACK: {},
    State.SUPERSEDED: {},
    State.QUARANTINED: {},
}

TERMINAL: Final = (State.HEALTHY, State.ROLLED_BACK, State.SUPERSEDED, State.QUARANTINED)
STEPPING: Final = (
    State.SHADOWING,
    State.WEIGHTING,
    State.PAUSED,
    State.ANALYZING,
    State.AWAITING,
    State.SOAKING,
)
"""States in which users or their copied traffic may meet the release."""
