from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FetchRequest(_message.Message):
    __slots__ = ("digest", "offset", "release")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    offset: int
    release: bytes
    def __init__(self, digest: _Optional[bytes] = ..., offset: _Optional[int] = ..., release: _Optional[bytes] = ...) -> None: ...

class FetchResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class RecipeRequest(_message.Message):
    __slots__ = ("digest", "release")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    release: bytes
    def __init__(self, digest: _Optional[bytes] = ..., release: _Optional[bytes] = ...) -> None: ...

class RecipeResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class PartsRequest(_message.Message):
    __slots__ = ("digest", "release", "recipe", "parts", "base", "base_release", "packed", "insist", "ticket")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    BASE_RELEASE_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    INSIST_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    release: bytes
    recipe: bytes
    parts: _containers.RepeatedScalarFieldContainer[int]
    base: bytes
    base_release: bytes
    packed: bool
    insist: bool
    ticket: bytes
    def __init__(self, digest: _Optional[bytes] = ..., release: _Optional[bytes] = ..., recipe: _Optional[bytes] = ..., parts: _Optional[_Iterable[int]] = ..., base: _Optional[bytes] = ..., base_release: _Optional[bytes] = ..., packed: bool = ..., insist: bool = ..., ticket: _Optional[bytes] = ...) -> None: ...

class PartsResponse(_message.Message):
    __slots__ = ("part", "data", "last", "elsewhere", "ticket")
    PART_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    ELSEWHERE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    part: int
    data: bytes
    last: bool
    elsewhere: _containers.RepeatedCompositeFieldContainer[Neighbour]
    ticket: bytes
    def __init__(self, part: _Optional[int] = ..., data: _Optional[bytes] = ..., last: bool = ..., elsewhere: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ..., ticket: _Optional[bytes] = ...) -> None: ...

class Neighbour(_message.Message):
    __slots__ = ("node", "address")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node: str
    address: str
    def __init__(self, node: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...
