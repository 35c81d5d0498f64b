from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChooseRequest(_message.Message):
    __slots__ = ("model", "unit", "context")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    model: str
    unit: str
    context: _containers.ScalarMap[str, str]
    def __init__(self, model: _Optional[str] = ..., unit: _Optional[str] = ..., context: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ChooseResponse(_message.Message):
    __slots__ = ("release", "version", "role", "reason", "rollout", "generation")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    release: str
    version: str
    role: str
    reason: str
    rollout: str
    generation: int
    def __init__(self, release: _Optional[str] = ..., version: _Optional[str] = ..., role: _Optional[str] = ..., reason: _Optional[str] = ..., rollout: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("node", "facts")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    node: str
    facts: _containers.ScalarMap[str, str]
    def __init__(self, node: _Optional[str] = ..., facts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("assignment", "signature")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    assignment: bytes
    signature: bytes
    def __init__(self, assignment: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("node", "boot_nonce", "seq", "report")
    NODE_FIELD_NUMBER: _ClassVar[int]
    BOOT_NONCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    node: str
    boot_nonce: bytes
    seq: int
    report: bytes
    def __init__(self, node: _Optional[str] = ..., boot_nonce: _Optional[bytes] = ..., seq: _Optional[int] = ..., report: _Optional[bytes] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("acknowledged_seq",)
    ACKNOWLEDGED_SEQ_FIELD_NUMBER: _ClassVar[int]
    acknowledged_seq: int
    def __init__(self, acknowledged_seq: _Optional[int] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("request_id", "outcome")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    outcome: str
    def __init__(self, request_id: _Optional[str] = ..., outcome: _Optional[str] = ...) -> None: ...

class RecordRequest(_message.Message):
    __slots__ = ("model", "labels")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    def __init__(self, model: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ...) -> None: ...

class RecordResponse(_message.Message):
    __slots__ = ("joined", "unknown")
    JOINED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    joined: int
    unknown: int
    def __init__(self, joined: _Optional[int] = ..., unknown: _Optional[int] = ...) -> None: ...
