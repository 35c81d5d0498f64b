"""Each count reaches the region once, whatever is lost or repeated on the way."""

from __future__ import annotations

from hanse.core.ids import segment
from hanse.core.limits import REPORT_BYTES_MAX
from hanse.core.telemetry import Counts, ModelReport, Window, parse_report
from hanse.edge.outbox import MODELS_A_REPORT, Outbox

OCR = segment("ocr-rec")
STATE = (ModelReport(OCR),)


def window(requests: int, generation: int = 1) -> Window:
    return Window(OCR, "r", generation, stable=Counts(requests))


def requests_in(raw: bytes) -> int:
    report = parse_report(raw)
    return sum(w.stable.requests for m in report.models for w in m.windows)


def test_an_unacknowledged_report_keeps_its_number_and_its_bytes() -> None:
    outbox = Outbox(segment("edge-1"))
    outbox.add([window(3)])
    outbox.seal(1, 1, STATE)
    first = outbox.head()
    outbox.add([window(4)])
    outbox.seal(1, 2, STATE)
    assert outbox.head() == first


def test_what_waited_is_merged_and_sent_once() -> None:
    outbox = Outbox(segment("edge-1"))
    seen: dict[int, int] = {}
    for i in range(20):
        outbox.add([window(1)])
        outbox.seal(1, 1, STATE)
        head = outbox.head()
        assert head is not None
        seq, raw = head
        seen[seq] = requests_in(raw)  # the region counts a number once
        if i % 3 == 2:  # the other answers are lost
            outbox.acknowledge(seq)
    for _ in range(2):  # the one that is under way, and one with all that waits
        outbox.seal(1, 1, STATE)
        head = outbox.head()
        assert head is not None
        seen[head[0]] = requests_in(head[1])
        outbox.acknowledge(head[0])
    assert sum(seen.values()) == 20


def test_generations_stay_apart() -> None:
    outbox = Outbox(segment("edge-1"))
    outbox.add([window(1, 1), window(2, 2), window(3, 1)])
    outbox.seal(1, 1, STATE)
    head = outbox.head()
    assert head is not None
    (model,) = parse_report(head[1]).models
    assert {w.generation: w.stable.requests for w in model.windows} == {1: 4, 2: 2}


def test_what_is_too_much_for_one_report_goes_into_the_next() -> None:
    outbox = Outbox(segment("edge-1"))
    wide = Counts(10**6, latency=dict.fromkeys(range(600), 1000))
    outbox.add(Window(OCR, "r", i, stable=wide) for i in range(30))
    sent = 0
    while sent < 30:
        outbox.seal(1, 1, STATE)
        head = outbox.head()
        assert head is not None
        assert len(head[1]) <= REPORT_BYTES_MAX
        sent += len(parse_report(head[1]).models[0].windows)
        outbox.acknowledge(head[0])
    assert sent == 30


def test_many_models_are_spread_over_several_reports() -> None:
    outbox = Outbox(segment("edge-1"))
    models = [ModelReport(segment(f"m{i}")) for i in range(3 * MODELS_A_REPORT)]
    outbox.seal(1, 1, models)
    seen = []
    while (head := outbox.head()) is not None:
        seen += [m.model for m in parse_report(head[1]).models]
        outbox.acknowledge(head[0])
    assert seen == [m.model for m in models]


def test_a_long_silence_is_bounded_and_says_what_it_lost() -> None:
    outbox = Outbox(segment("edge-1"))
    outbox.add(window(1, generation) for generation in range(5000))
    assert outbox.lost_windows == 5000 - 1024
