"""Whichever call to the disk fails: a refusal, never a wrong answer or a lost row (F04, F05)."""

from __future__ import annotations

from pathlib import Path

import pytest

from power.calls import WAYS, check_one, count_calls

EVERY = 37
"""The complete sweep is `scripts/campaign calls`."""


@pytest.mark.parametrize("how", WAYS)
async def test_whichever_call_fails_nothing_acknowledged_is_lost(how: str, tmp_path: Path) -> None:
    calls = await count_calls(tmp_path)
    assert calls > 150
    start = WAYS.index(how) % EVERY + 1
    refused = [await check_one(n, how, tmp_path) for n in range(start, calls + 1, EVERY)]
    assert sum(refused) > len(refused) // 4
