"""Every bound that Hanse puts on what comes from outside, in one place.

The names follow the table in `docs/formats.md`. Those marked *format* decide validity, so
changing one is a new reader level; all others are local and may differ between daemons.
"""

from __future__ import annotations

FRAME_BYTES_MAX = 256 * 1024
EVENT_BYTES_MAX = 16 * 1024  # format
MANIFEST_BYTES_MAX = 12 * 1024  # format
SPEC_BYTES_MAX = 8 * 1024  # format
CHUNK_EVENTS_MAX = 256
CHUNK_BYTES_MAX = 240 * 1024  # leaves room for the checkpoint inside one frame
NOTE_BYTES_MAX = 64 * 1024  # format
NOTE_SIGNATURES_MAX = 16  # format
POLICY_BYTES_MAX = 64 * 1024  # format
POLICY_REGIONS_MAX = 15
DEPS_MAX = 16  # format
SUPERSEDES_MAX = 16  # format
ATTESTATIONS_MAX = 8  # format
LABELS_MAX = 64  # format
TEXT_BYTES_MAX = 512  # format
PARENTS_MAX = 16  # format
FILES_MAX = 64  # format
FILE_BYTES_MAX = 64 * 1024**3
INLINE_BYTES_MAX = 4 * 1024
PULLS_IN_FLIGHT_MAX = 4
PULL_TIMEOUT_S = 1.0
COMMIT_EVENTS_MAX = 256
FRAMES_PER_S = 50
FRAMES_BURST = 500
SEND_QUEUE_MAX = 256
ANTI_ENTROPY_S = 10.0
ANTI_ENTROPY_JITTER = 0.2
PINGS_PER_ROUND = 2  # links that are pinged each time, in turn
ANSWERS_PER_ROUND = 2048  # and two for each log that we hold
RANDOM_LINK_S = 3600.0
BLOB_CHUNK_BYTES = 1024 * 1024
REGIONS_MAX = 1000  # format
TRUST_BUNDLE_BYTES_MAX = 16 * 1024**2  # format
TRUST_ROOT_BYTES_MAX = 512_000  # format
TRUST_SNAPSHOT_BYTES_MAX = 2_000_000  # format
TRUST_TARGETS_BYTES_MAX = 5_000_000  # format
TRUST_TARGET_BYTES_MAX = 5_000_000  # format
TRUST_SIGNATURES_MAX = 32  # format
TIMESTAMP_BYTES_MAX = 16_384  # format
CONTROL_LINE_BYTES_MAX = 1024 * 1024
REPORT_BYTES_MAX = 64 * 1024
SHOWN_MS_MAX = 253_370_764_800_000  # the year 9999: authors write what they like, calendars end
NODES_MAX = 20_000
EXPORT_FILE_BYTES_MAX = 16 * 1024 * 1024
INDEX_BYTES_MAX = 4 * 1024 * 1024
DOOR_CONNECTIONS_MAX = 64
DOOR_CONNECTION_S = 60.0
DOOR_REQUEST_BYTES_MAX = 8 * 1024
DOOR_TILES_AT_ONCE = 4
DOOR_TILES_KEPT = 512
DOOR_ROOTS_KEPT = 65_536
