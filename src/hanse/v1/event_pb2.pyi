from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TYPE_UNSPECIFIED: _ClassVar[EventType]
    EVENT_TYPE_LOG_OPEN: _ClassVar[EventType]
    EVENT_TYPE_RELEASE_RECORD: _ClassVar[EventType]
    EVENT_TYPE_PROMOTE: _ClassVar[EventType]
    EVENT_TYPE_HOLD: _ClassVar[EventType]
    EVENT_TYPE_HOLD_LIFT: _ClassVar[EventType]
    EVENT_TYPE_KILL: _ClassVar[EventType]
    EVENT_TYPE_ROLLBACK: _ClassVar[EventType]
    EVENT_TYPE_FLOOR_RAISE: _ClassVar[EventType]
    EVENT_TYPE_EVAL_ATTEST: _ClassVar[EventType]
    EVENT_TYPE_BLOB_HAVE: _ClassVar[EventType]
    EVENT_TYPE_BLOB_DROP: _ClassVar[EventType]
    EVENT_TYPE_FORK_EVIDENCE: _ClassVar[EventType]
    EVENT_TYPE_STATE_ATTEST: _ClassVar[EventType]
    EVENT_TYPE_NOTE: _ClassVar[EventType]
    EVENT_TYPE_ROLLOUT_INTENT: _ClassVar[EventType]
    EVENT_TYPE_ROLLOUT_CONTROL: _ClassVar[EventType]
    EVENT_TYPE_ROLLOUT_REPORT: _ClassVar[EventType]
    EVENT_TYPE_HEALTHY: _ClassVar[EventType]
    EVENT_TYPE_ROLLOUT_APPROVE: _ClassVar[EventType]
    EVENT_TYPE_RETRAIN: _ClassVar[EventType]
    EVENT_TYPE_RETRAIN_RESULT: _ClassVar[EventType]
    EVENT_TYPE_RELEASE_RETIRE: _ClassVar[EventType]
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_LOG_OPEN: EventType
EVENT_TYPE_RELEASE_RECORD: EventType
EVENT_TYPE_PROMOTE: EventType
EVENT_TYPE_HOLD: EventType
EVENT_TYPE_HOLD_LIFT: EventType
EVENT_TYPE_KILL: EventType
EVENT_TYPE_ROLLBACK: EventType
EVENT_TYPE_FLOOR_RAISE: EventType
EVENT_TYPE_EVAL_ATTEST: EventType
EVENT_TYPE_BLOB_HAVE: EventType
EVENT_TYPE_BLOB_DROP: EventType
EVENT_TYPE_FORK_EVIDENCE: EventType
EVENT_TYPE_STATE_ATTEST: EventType
EVENT_TYPE_NOTE: EventType
EVENT_TYPE_ROLLOUT_INTENT: EventType
EVENT_TYPE_ROLLOUT_CONTROL: EventType
EVENT_TYPE_ROLLOUT_REPORT: EventType
EVENT_TYPE_HEALTHY: EventType
EVENT_TYPE_ROLLOUT_APPROVE: EventType
EVENT_TYPE_RETRAIN: EventType
EVENT_TYPE_RETRAIN_RESULT: EventType
EVENT_TYPE_RELEASE_RETIRE: EventType

class Event(_message.Message):
    __slots__ = ("schema", "min_reader_level", "origin_hash", "seq", "trust_version", "trust_digest", "hlc_ms", "hlc_counter", "type", "deps", "supersedes", "payload_commitment", "salt", "payload", "attestations")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MIN_READER_LEVEL_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_HASH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TRUST_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRUST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HLC_MS_FIELD_NUMBER: _ClassVar[int]
    HLC_COUNTER_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DEPS_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ATTESTATIONS_FIELD_NUMBER: _ClassVar[int]
    schema: int
    min_reader_level: int
    origin_hash: bytes
    seq: int
    trust_version: int
    trust_digest: bytes
    hlc_ms: int
    hlc_counter: int
    type: EventType
    deps: _containers.RepeatedCompositeFieldContainer[LogPosition]
    supersedes: _containers.RepeatedScalarFieldContainer[bytes]
    payload_commitment: bytes
    salt: bytes
    payload: bytes
    attestations: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, schema: _Optional[int] = ..., min_reader_level: _Optional[int] = ..., origin_hash: _Optional[bytes] = ..., seq: _Optional[int] = ..., trust_version: _Optional[int] = ..., trust_digest: _Optional[bytes] = ..., hlc_ms: _Optional[int] = ..., hlc_counter: _Optional[int] = ..., type: _Optional[_Union[EventType, str]] = ..., deps: _Optional[_Iterable[_Union[LogPosition, _Mapping]]] = ..., supersedes: _Optional[_Iterable[bytes]] = ..., payload_commitment: _Optional[bytes] = ..., salt: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., attestations: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LogPosition(_message.Message):
    __slots__ = ("origin_hash", "size", "root")
    ORIGIN_HASH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    origin_hash: bytes
    size: int
    root: bytes
    def __init__(self, origin_hash: _Optional[bytes] = ..., size: _Optional[int] = ..., root: _Optional[bytes] = ...) -> None: ...

class LogOpen(_message.Message):
    __slots__ = ("incarnation", "prev_origin", "prev_size", "prev_root", "boot_reason")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PREV_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    PREV_SIZE_FIELD_NUMBER: _ClassVar[int]
    PREV_ROOT_FIELD_NUMBER: _ClassVar[int]
    BOOT_REASON_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    prev_origin: str
    prev_size: int
    prev_root: bytes
    boot_reason: str
    def __init__(self, incarnation: _Optional[int] = ..., prev_origin: _Optional[str] = ..., prev_size: _Optional[int] = ..., prev_root: _Optional[bytes] = ..., boot_reason: _Optional[str] = ...) -> None: ...

class ReleaseRecord(_message.Message):
    __slots__ = ("model", "version", "counter", "manifest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    counter: int
    manifest: bytes
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., counter: _Optional[int] = ..., manifest: _Optional[bytes] = ...) -> None: ...

class Promote(_message.Message):
    __slots__ = ("model", "channel", "region", "release", "manifest_size", "counter", "rollout", "generation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SIZE_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    channel: str
    region: str
    release: bytes
    manifest_size: int
    counter: int
    rollout: str
    generation: int
    def __init__(self, model: _Optional[str] = ..., channel: _Optional[str] = ..., region: _Optional[str] = ..., release: _Optional[bytes] = ..., manifest_size: _Optional[int] = ..., counter: _Optional[int] = ..., rollout: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Hold(_message.Message):
    __slots__ = ("model", "region", "release", "reason", "expires_ms", "rollout", "generation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    region: str
    release: bytes
    reason: str
    expires_ms: int
    rollout: str
    generation: int
    def __init__(self, model: _Optional[str] = ..., region: _Optional[str] = ..., release: _Optional[bytes] = ..., reason: _Optional[str] = ..., expires_ms: _Optional[int] = ..., rollout: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class HoldLift(_message.Message):
    __slots__ = ("model", "hold", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    hold: bytes
    reason: str
    def __init__(self, model: _Optional[str] = ..., hold: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class Kill(_message.Message):
    __slots__ = ("model", "release", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    release: bytes
    reason: str
    def __init__(self, model: _Optional[str] = ..., release: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class Rollback(_message.Message):
    __slots__ = ("model", "channel", "region", "from_activation", "from_release", "to_release", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    FROM_ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    FROM_RELEASE_FIELD_NUMBER: _ClassVar[int]
    TO_RELEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    channel: str
    region: str
    from_activation: bytes
    from_release: bytes
    to_release: bytes
    reason: str
    def __init__(self, model: _Optional[str] = ..., channel: _Optional[str] = ..., region: _Optional[str] = ..., from_activation: _Optional[bytes] = ..., from_release: _Optional[bytes] = ..., to_release: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class FloorRaise(_message.Message):
    __slots__ = ("model", "counter", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    counter: int
    reason: str
    def __init__(self, model: _Optional[str] = ..., counter: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class BlobHave(_message.Message):
    __slots__ = ("model", "digests")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    digests: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, model: _Optional[str] = ..., digests: _Optional[_Iterable[bytes]] = ...) -> None: ...

class BlobDrop(_message.Message):
    __slots__ = ("model", "digests")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    digests: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, model: _Optional[str] = ..., digests: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StateAttest(_message.Message):
    __slots__ = ("head_map_digest", "state_digest", "trust_version")
    HEAD_MAP_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRUST_VERSION_FIELD_NUMBER: _ClassVar[int]
    head_map_digest: bytes
    state_digest: bytes
    trust_version: int
    def __init__(self, head_map_digest: _Optional[bytes] = ..., state_digest: _Optional[bytes] = ..., trust_version: _Optional[int] = ...) -> None: ...

class Note(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class RolloutIntent(_message.Message):
    __slots__ = ("model", "rollout", "generation", "release", "predecessor", "spec", "mandate")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PREDECESSOR_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    MANDATE_FIELD_NUMBER: _ClassVar[int]
    model: str
    rollout: str
    generation: int
    release: bytes
    predecessor: bytes
    spec: bytes
    mandate: bytes
    def __init__(self, model: _Optional[str] = ..., rollout: _Optional[str] = ..., generation: _Optional[int] = ..., release: _Optional[bytes] = ..., predecessor: _Optional[bytes] = ..., spec: _Optional[bytes] = ..., mandate: _Optional[bytes] = ...) -> None: ...

class RolloutControl(_message.Message):
    __slots__ = ("model", "rollout", "generation", "action", "region", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    rollout: str
    generation: int
    action: str
    region: str
    reason: str
    def __init__(self, model: _Optional[str] = ..., rollout: _Optional[str] = ..., generation: _Optional[int] = ..., action: _Optional[str] = ..., region: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RolloutApprove(_message.Message):
    __slots__ = ("model", "rollout", "generation", "spec_digest", "stage", "step", "role", "count")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SPEC_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    model: str
    rollout: str
    generation: int
    spec_digest: bytes
    stage: str
    step: int
    role: str
    count: int
    def __init__(self, model: _Optional[str] = ..., rollout: _Optional[str] = ..., generation: _Optional[int] = ..., spec_digest: _Optional[bytes] = ..., stage: _Optional[str] = ..., step: _Optional[int] = ..., role: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class RolloutReport(_message.Message):
    __slots__ = ("model", "rollout", "generation", "release", "region", "state", "stage", "step", "verdict", "reason", "evidence")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    rollout: str
    generation: int
    release: bytes
    region: str
    state: str
    stage: int
    step: int
    verdict: str
    reason: str
    evidence: bytes
    def __init__(self, model: _Optional[str] = ..., rollout: _Optional[str] = ..., generation: _Optional[int] = ..., release: _Optional[bytes] = ..., region: _Optional[str] = ..., state: _Optional[str] = ..., stage: _Optional[int] = ..., step: _Optional[int] = ..., verdict: _Optional[str] = ..., reason: _Optional[str] = ..., evidence: _Optional[bytes] = ...) -> None: ...

class Healthy(_message.Message):
    __slots__ = ("model", "release", "rollout", "generation", "region", "spec_digest", "evidence_digest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    SPEC_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    release: bytes
    rollout: str
    generation: int
    region: str
    spec_digest: bytes
    evidence_digest: bytes
    def __init__(self, model: _Optional[str] = ..., release: _Optional[bytes] = ..., rollout: _Optional[str] = ..., generation: _Optional[int] = ..., region: _Optional[str] = ..., spec_digest: _Optional[bytes] = ..., evidence_digest: _Optional[bytes] = ...) -> None: ...

class Retrain(_message.Message):
    __slots__ = ("model", "region", "release", "hold", "cause", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    region: str
    release: bytes
    hold: bytes
    cause: str
    reason: str
    def __init__(self, model: _Optional[str] = ..., region: _Optional[str] = ..., release: _Optional[bytes] = ..., hold: _Optional[bytes] = ..., cause: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RetrainResult(_message.Message):
    __slots__ = ("model", "region", "retrain", "outcome", "release", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    RETRAIN_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    region: str
    retrain: bytes
    outcome: str
    release: bytes
    reason: str
    def __init__(self, model: _Optional[str] = ..., region: _Optional[str] = ..., retrain: _Optional[bytes] = ..., outcome: _Optional[str] = ..., release: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class ReleaseRetire(_message.Message):
    __slots__ = ("model", "release", "phase", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    release: bytes
    phase: str
    reason: str
    def __init__(self, model: _Optional[str] = ..., release: _Optional[bytes] = ..., phase: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
