"""Hours of the week in which a rollout begins nothing and raises nothing.

    freeze:
      - {days: [fri], from: "16:00", to: "24:00", zone: "+01:00"}
      - {days: [sat, sun]}

Each region goes by its own clock. Within a window no stage begins, no weight rises and nothing is
promoted; a rollout stays at the weight that it has. Holding and going back are always possible. A
zone is a fixed distance from UTC: which hours summer time moves is not for signed bytes to depend
on. A window ends on the day on which it begins; one over midnight is two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hanse.core.rollout.fields import Fields, distinct, fail, listed, one_of

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WINDOWS_MAX: Final = 16
DAY_MIN: Final = 24 * 60
WEEK_MIN: Final = 7 * DAY_MIN
_EPOCH_DAY: Final = 3  # 1 January 1970 was a Thursday
_TIME: Final = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
_ZONE: Final = re.compile(r"([+-])(0[0-9]|1[0-4]):(00|15|30|45)")


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """`days` are indices into `DAYS`; times are minutes of the day in a zone that is `zone_min`
    minutes ahead of UTC."""

    days: tuple[int, ...]
    from_min: int
    to_min: int
    zone_min: int

    def covers(self, wall_ms: int) -> bool:
        """Whether a moment, in Unix milliseconds, lies in it."""
        local_min = wall_ms // 60_000 + self.zone_min
        day = (local_min // DAY_MIN + _EPOCH_DAY) % 7
        return day in self.days and self.from_min <= local_min % DAY_MIN < self.to_min

    @property
    def text(self) -> str:
        days = " ".join(DAYS[day] for day in self.days)
        return f"{days} {_time(self.from_min)} to {_time(self.to_min)} {_zone(self.zone_min)}"


def parse_freeze(value: object, path: str) -> tuple[FreezeWindow, ...]:
    windows = listed(_window, empty=True)(value, path)
    if len(windows) > WINDOWS_MAX:
        raise fail(path, f"{len(windows)} windows", f"write at most {WINDOWS_MAX}")
    if len(_minutes(windows)) == WEEK_MIN:
        raise fail(path, "the whole week is frozen", "leave some hours in which it may begin")
    return windows


def freeze_mapping(windows: Iterable[FreezeWindow]) -> list[dict[str, object]]:
    return [
        {
            "days": [DAYS[day] for day in window.days],
            "from": _time(window.from_min),
            "to": _time(window.to_min),
            "zone": _zone(window.zone_min),
        }
        for window in windows
    ]


def _minutes(windows: Iterable[FreezeWindow]) -> set[int]:
    """The minutes of the UTC week that are frozen."""
    return {
        (day * DAY_MIN + minute - window.zone_min) % WEEK_MIN
        for window in windows
        for day in window.days
        for minute in range(window.from_min, window.to_min)
    }


def _window(value: object, path: str) -> FreezeWindow:
    fields = Fields.of(value, path, ("days", "from", "to", "zone"))
    if not fields.values:
        raise fail(path, "says nothing", 'write {days: [fri], from: "16:00"}')
    window = FreezeWindow(
        fields.optional("days", _days, tuple(range(7))),
        fields.optional("from", _minute, 0),
        fields.optional("to", _minute, DAY_MIN),
        fields.optional("zone", _offset, 0),
    )
    if window.from_min >= window.to_min:
        raise fail(
            fields.at("to"),
            f"{_time(window.to_min)} is not after {_time(window.from_min)}",
            "write two windows for one that goes over midnight",
        )
    return window


def _days(value: object, path: str) -> tuple[int, ...]:
    days = listed(one_of(*DAYS))([value] if isinstance(value, str) else value, path)
    distinct(days, path)
    return tuple(sorted(map(DAYS.index, days)))


def _minute(value: object, path: str) -> int:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    minute = int(found[1]) * 60 + int(found[2]) if found else DAY_MIN + 1
    if minute > DAY_MIN:
        # YAML reads 16:00 without quotes as the number 960.
        raise fail(path, f"{value!r:.80} is no time of the day", 'write "16:00", with the quotes')
    return minute


def _offset(value: object, path: str) -> int:
    if value == "UTC":
        return 0
    found = _ZONE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise fail(path, f"{value!r:.80} is no zone", 'write UTC, or a distance such as "+01:00"')
    return int(f"{found[1]}1") * (int(found[2]) * 60 + int(found[3]))


def _time(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _zone(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{_time(abs(minutes))}" if minutes else "UTC"
