from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LinkRequest(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class LinkResponse(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProbeResponse(_message.Message):
    __slots__ = ("region",)
    REGION_FIELD_NUMBER: _ClassVar[int]
    region: str
    def __init__(self, region: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("hello", "hello_proof", "heads", "announce", "pull", "chunk", "trust_file", "ping", "evidence", "status", "timestamp", "fingerprints")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HELLO_PROOF_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    PULL_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRUST_FILE_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    hello_proof: HelloProof
    heads: Heads
    announce: Announce
    pull: Pull
    chunk: Chunk
    trust_file: TrustFile
    ping: Ping
    evidence: Evidence
    status: Status
    timestamp: Timestamp
    fingerprints: Fingerprints
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., hello_proof: _Optional[_Union[HelloProof, _Mapping]] = ..., heads: _Optional[_Union[Heads, _Mapping]] = ..., announce: _Optional[_Union[Announce, _Mapping]] = ..., pull: _Optional[_Union[Pull, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., trust_file: _Optional[_Union[TrustFile, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., evidence: _Optional[_Union[Evidence, _Mapping]] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., timestamp: _Optional[_Union[Timestamp, _Mapping]] = ..., fingerprints: _Optional[_Union[Fingerprints, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "reader_level", "federation", "origin", "trust_version", "trust_digest", "nonce", "head_map_digest", "boot_nonce", "yours", "rival_nonce")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    READER_LEVEL_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    TRUST_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRUST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_MAP_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BOOT_NONCE_FIELD_NUMBER: _ClassVar[int]
    YOURS_FIELD_NUMBER: _ClassVar[int]
    RIVAL_NONCE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    reader_level: int
    federation: str
    origin: str
    trust_version: int
    trust_digest: bytes
    nonce: bytes
    head_map_digest: bytes
    boot_nonce: bytes
    yours: _containers.RepeatedCompositeFieldContainer[LogHead]
    rival_nonce: bytes
    def __init__(self, protocol: _Optional[int] = ..., reader_level: _Optional[int] = ..., federation: _Optional[str] = ..., origin: _Optional[str] = ..., trust_version: _Optional[int] = ..., trust_digest: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., head_map_digest: _Optional[bytes] = ..., boot_nonce: _Optional[bytes] = ..., yours: _Optional[_Iterable[_Union[LogHead, _Mapping]]] = ..., rival_nonce: _Optional[bytes] = ...) -> None: ...

class HelloProof(_message.Message):
    __slots__ = ("signature",)
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    signature: bytes
    def __init__(self, signature: _Optional[bytes] = ...) -> None: ...

class LogHead(_message.Message):
    __slots__ = ("origin", "size", "root_prefix", "final_size", "frozen")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FINAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    origin: str
    size: int
    root_prefix: bytes
    final_size: int
    frozen: int
    def __init__(self, origin: _Optional[str] = ..., size: _Optional[int] = ..., root_prefix: _Optional[bytes] = ..., final_size: _Optional[int] = ..., frozen: _Optional[int] = ...) -> None: ...

class Heads(_message.Message):
    __slots__ = ("heads", "below")
    HEADS_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    heads: _containers.RepeatedCompositeFieldContainer[LogHead]
    below: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, heads: _Optional[_Iterable[_Union[LogHead, _Mapping]]] = ..., below: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("prefix", "parts")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    parts: bytes
    def __init__(self, prefix: _Optional[bytes] = ..., parts: _Optional[bytes] = ...) -> None: ...

class Fingerprints(_message.Message):
    __slots__ = ("ranges",)
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    def __init__(self, ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ...) -> None: ...

class Announce(_message.Message):
    __slots__ = ("origin", "note", "start", "events")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    origin: str
    note: bytes
    start: int
    events: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, origin: _Optional[str] = ..., note: _Optional[bytes] = ..., start: _Optional[int] = ..., events: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Pull(_message.Message):
    __slots__ = ("origin", "start")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    origin: str
    start: int
    def __init__(self, origin: _Optional[str] = ..., start: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("origin", "start", "events", "note")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    origin: str
    start: int
    events: _containers.RepeatedScalarFieldContainer[bytes]
    note: bytes
    def __init__(self, origin: _Optional[str] = ..., start: _Optional[int] = ..., events: _Optional[_Iterable[bytes]] = ..., note: _Optional[bytes] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("origin", "kind", "serial", "body", "signature")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    origin: str
    kind: str
    serial: int
    body: bytes
    signature: bytes
    def __init__(self, origin: _Optional[str] = ..., kind: _Optional[str] = ..., serial: _Optional[int] = ..., body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class TrustFile(_message.Message):
    __slots__ = ("version", "part", "parts", "data")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    version: int
    part: int
    parts: int
    data: bytes
    def __init__(self, version: _Optional[int] = ..., part: _Optional[int] = ..., parts: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("raw",)
    RAW_FIELD_NUMBER: _ClassVar[int]
    raw: bytes
    def __init__(self, raw: _Optional[bytes] = ...) -> None: ...

class Timestamp(_message.Message):
    __slots__ = ("raw",)
    RAW_FIELD_NUMBER: _ClassVar[int]
    raw: bytes
    def __init__(self, raw: _Optional[bytes] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("head_map_digest", "trust_version", "answer", "timestamp_s", "trust_prefix")
    HEAD_MAP_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRUST_VERSION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    TRUST_PREFIX_FIELD_NUMBER: _ClassVar[int]
    head_map_digest: bytes
    trust_version: int
    answer: bool
    timestamp_s: int
    trust_prefix: bytes
    def __init__(self, head_map_digest: _Optional[bytes] = ..., trust_version: _Optional[int] = ..., answer: bool = ..., timestamp_s: _Optional[int] = ..., trust_prefix: _Optional[bytes] = ...) -> None: ...
