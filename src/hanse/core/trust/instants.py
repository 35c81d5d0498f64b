"""Moments as TUF writes them, without a clock: `2027-01-15T08:00:00Z` for Unix seconds."""

from __future__ import annotations

DAY_S = 86_400
LAST_S = 253_402_300_799
"""The last second of the year 9999; TUF's form of a date ends there."""


def to_iso(seconds: int) -> str:
    """Civil date and time of 0 <= `seconds` <= `LAST_S`, in the proleptic Gregorian calendar."""
    days, second = divmod(seconds, DAY_S)
    # Years begin in March here, so that the leap day is the last one (H. Hinnant's algorithm).
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    march = (5 * day + 2) // 153
    month = march + 3 if march < 10 else march - 9
    date = (
        f"{era * 400 + year + (month <= 2):04d}-{month:02d}-{day - (153 * march + 2) // 5 + 1:02d}"
    )
    return f"{date}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
