"""How an audit, a comparison and a proof are told: as mappings for `-o json`, as tables to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hanse.cli.output import Table, at

if TYPE_CHECKING:
    from hanse.core.audit.compare import Difference
    from hanse.core.audit.history import Run
    from hanse.core.audit.proof import Proven
    from hanse.core.audit.replay import Audit, Final, Judged, LogAudit
    from hanse.core.ids import Origin

Shown = tuple[dict[str, Any], Table]


EVENT_COLUMNS = ("EVENT", "LOG", "SEQ", "TYPE", "AT", "ROLE", "SIGNED BY", "VOID", "SAYS")


def audit_table(audited: Audit, *, events: bool = False) -> Shown:
    """Which release ran where, when, approved by whom; with `events`, every single one."""
    from hanse.core.audit.history import runs

    current = audited.chain.current
    found = [
        run for model in sorted(audited.catalog.views)
        for run in runs(audited.catalog, audited.chain, model)
    ]  # fmt: skip
    every = ((e, log.origin) for log in audited.logs.values() for e in log.events)
    listed = [_event(event, log) for event, log in every if events or event.void]
    value = {
        "federation": current.federation,
        "trust_version": current.version,
        "state_digest": audited.state_digest.hex(),
        "heads_digest": audited.heads_digest.hex(),
        "logs": [_log(log) for log in audited.logs.values()],
        "forked": [
            {"origin": str(origin), "index": fork.index, "evidence": fork.encode().decode()}
            for origin, fork in sorted(audited.forks.items())
        ],
        "runs": [_run(run) for run in found],
        "void": [event for event in listed if event["void"]],
        **({"events": listed} if events else {}),
    }
    return value, _audit_table(value)


def _audit_table(value: Mapping[str, Any]) -> Table:
    head = [
        f"{value['federation']}, trust version {value['trust_version']}: everything stands",
        f"state digest {value['state_digest']}",
        *(
            f"log {log['origin']}: {log['size']} events, {log['void']} void, "
            f"final to {log['final']}"
            for log in value["logs"]
        ),
        *(
            f"FORKED {fork['origin']}: its key signed two histories that part at event "
            f"{fork['index']}; the proof stands"
            for fork in value["forked"]
        ),
        "",
    ]
    foot = [f"void: {e['event']} {e['type']}: {e['void']}" for e in value["void"]]
    if "events" in value:
        rows = [_event_row(event) for event in value["events"]]
        return Table(EVENT_COLUMNS, rows, head, foot)
    columns = ("MODEL", "REGION", "RELEASE", "FROM", "UNTIL", "BY", "PUBLISHED BY", "APPROVED BY")
    return Table(columns, [_run_row(run) for run in value["runs"]], head, foot)


def _log(log: LogAudit) -> dict[str, Any]:
    return {
        "origin": str(log.origin),
        "size": log.head.size,
        "root": log.head.root.hex(),
        **_final(log.final),
        "types": dict(sorted(Counter(event.type for event in log.events).items())),
        "void": sum(bool(event.void) for event in log.events),
    }


def _final(final: Final | None) -> dict[str, Any]:
    """How many events are final, and whose cosignatures say so."""
    return {
        "final": final.head.size if final else 0,
        "witnesses": [key.name for key in final.witnesses] if final else [],
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "model": run.model,
        "region": run.region,
        "release": str(run.release),
        "version": run.version,
        "cause": run.cause,
        "event": str(run.event),
        "log": run.author,
        "since_ms": run.since_ms,
        "until_ms": run.until_ms,
        "standing": run.standing,
        "rollout": run.rollout,
        "published_by": list(run.published_by),
        "approved_by": list(run.approved_by),
    }


def _run_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    until = at(run["until_ms"]) or ("now" if run["standing"] else "killed")
    return (
        run["model"],
        run["region"],
        f"{run['version']} ({run['release'][:19]})",
        at(run["since_ms"]),
        until,
        f"{run['cause']} {run['event']}",
        ", ".join(run["published_by"]) or "-",
        ", ".join(run["approved_by"]) or "-",
    )


def _event(event: Judged, log: Origin) -> dict[str, Any]:
    return {
        "event": str(event.id),
        "log": str(log),
        "seq": event.seq,
        "type": event.type,
        "at_ms": event.at_ms,
        "trust_version": event.trust_version,
        "role": event.role,
        "signed_by": list(event.signed_by),
        "void": event.void,
        "text": event.text,
    }


def _event_row(event: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        event["event"],
        event["log"],
        str(event["seq"]),
        event["type"],
        at(event["at_ms"]),
        event["role"],
        ", ".join(event["signed_by"]),
        event["void"] or "-",
        event["text"] or "-",
    )


def compared_table(
    found: Mapping[str, Audit],
    pairs: Sequence[tuple[str, Sequence[Difference]]],
    contradict: Sequence[str],
) -> Shown:
    first = next(iter(found))
    rows = [
        {
            "log": str(each.origin),
            "places": [first, other],
            "sizes": list(each.sizes),
            "result": each.kind,
            "fork_at": each.fork_at,
        }
        for other, differences in pairs
        for each in differences
    ]
    value = {
        "states": {place: audited.state_digest.hex() for place, audited in found.items()},
        "logs": rows,
        "contradict": list(contradict),
    }
    head = [f"state {digest} of {place}" for place, digest in value["states"].items()]  # type: ignore[attr-defined]  # a mapping
    foot = [f"{first} and {o} compute different states from the same logs" for o in contradict]
    return value, Table(("LOG", "PLACES", "EVENTS", "RESULT"), list(_compared(rows)), head, foot)


def _compared(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        result = row["result"]
        if row["fork_at"] is not None:
            result = f"FORK at event {row['fork_at']}: both histories are signed"
        yield row["log"], " | ".join(row["places"]), " | ".join(map(str, row["sizes"])), result


def proof_table(proven: Proven) -> Shown:
    value = {
        **_event(proven.event, proven.origin),
        "size": proven.head.size,
        "root": proven.head.root.hex(),
        **_final(proven.final),
    }
    rows = [
        ("event", f"{value['event']} {value['type']}"),
        ("stands at", f"{value['seq']} of {value['size']} in {value['log']}"),
        ("written", at(value["at_ms"])),
        (value["role"], ", ".join(value["signed_by"]) or "-"),
        ("cosigned by", ", ".join(value["witnesses"]) or "nobody"),
        ("final", "yes" if value["final"] else "no: no quorum of witnesses has cosigned this head"),
        ("counts", f"no: {value['void']}" if value["void"] else "yes"),
    ]
    return value, Table((), rows)
