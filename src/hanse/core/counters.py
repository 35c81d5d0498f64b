"""How often each limit has bitten, and how much was sent, since this process began.

A plain mapping of fixed names to whole numbers, owned by the node and shared with whatever
guards one of its doors. No name comes from outside, so nobody can make the mapping grow, and
counting under a name that is not listed is a `KeyError` in the first test that comes by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Counters = dict[str, int]

MEANINGS: Final[Mapping[str, str]] = {
    "authoring_refused": "own events refused because a day's bytes were written (L23)",
    "authors_slowed": "pulls of a log put off because its author wrote a day's bytes (L23)",
    "blob_bytes_sent": "bytes of model files sent to peers and nodes",
    "blobs_damaged": "files of the store, or their copies, found not to be what they were (T34)",
    "calls_at_once_refused": "calls refused because so many of that peer were under way",
    "calls_pace_refused": "calls refused because that peer called too often",
    "calls_silent": "calls ended because their request did not come in time",
    "calls_unreadable": "calls whose request could not be read",
    "claims_ignored": "heads of logs that a peer named and that could never enter",
    "fetches_denied": "fetches of model files by whom residency keeps them from (T35)",
    "fetches_refused": "fetches refused because so many of that peer were under way",
    "frames_rejected": "frames that said something wrong",
    "frames_too_large": "frames, or events in them, above a bound (L01, L02, L03); ends the link",
    "frames_unreadable": "frames that could not be read; ends the link",
    "hints_dropped": "announces, heads and pings dropped from a full send queue (L10, L18)",
    "links_ignored": "links ended at once because their peer is ignored for a while (L15)",
    "links_refused": "streams refused: no member, or a second one of a peer (L11)",
    "links_silent": "links ended because their peer was silent (L13)",
    "links_unproven": "links ended because their peer did not prove who it is",
    "links_unread": "links ended because their peer did not read what it had asked for (L18)",
    "log_lines_withheld": "log lines about a peer left out because there were so many",
    "news_withheld": "announces left to the next ping because all links together sent much (T49)",
    "nodes_refused": "nodes refused because so many watch",
    "parts_insisted": "parts of model files sent to nodes that did not get them from neighbours",
    "parts_pointed": "parts of model files for which a node was sent to its neighbours",
    "peers_ignored": "times that a peer was ignored for a while for what it made us verify (L15)",
    "pulls_ignored": "pulls of a peer that had too many unanswered (L11)",
    "pulls_late": "pulls that a peer did not answer in time (L14)",
    "questions_refused": "answers about heads withheld from a peer that asked too much in a round",
    "reads_paused": "times that reading of a link paused to keep its pace (L12)",
    "reports_refused": "reports refused for their size",
    "states_differed": "times that a member began to compute another state from equal logs (T50)",
    "statuses_ignored": "statuses not taken because their author spoke too often (T48)",
    "tickets_signed": "tickets with which a node may have a file from its neighbours",
}


def zeros() -> Counters:
    return dict.fromkeys(MEANINGS, 0)
