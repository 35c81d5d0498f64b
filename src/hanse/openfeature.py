"""An OpenFeature provider: which release answers this user, asked of the edge node beside us.

    api.set_provider(HanseProvider("127.0.0.1:8001"))
    user = EvaluationContext("customer-17", {"device": "dock"})
    api.get_client().get_boolean_value("ocr-rec", False, user)    # does the canary answer?

A flag is a model: as boolean, whether the canary answers; as string, the version; as object, all of
it. The node makes the same choice for an inference request with the targeting key as routing key
and the attributes as context, so what the application shows and what the model answers go together.
Asking computes nothing and counts nothing. If the node cannot be asked, callers get their default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import (
    FlagNotFoundError,
    InvalidContextError,
    OpenFeatureError,
    ProviderNotReadyError,
    TargetingKeyMissingError,
    TypeMismatchError,
)
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata

from hanse.core.audience import as_text
from hanse.core.errors import HanseError, NotFound, Rejected
from hanse.core.serving import Choice
from hanse.rpc.flag_client import FlagClient

TIMEOUT_S: Final = 0.25
_REASONS: Final = {
    "static": Reason.STATIC,
    "split": Reason.SPLIT,
    "target": Reason.DEFAULT,  # outside the rollout's target: what everybody gets
}
T = TypeVar("T")
Structure = Sequence[FlagValueType] | Mapping[str, FlagValueType]
Asked = EvaluationContext | None


class HanseProvider(AbstractProvider):
    """`address`: the node's `listen`, also `unix:PATH`. `ca_pem` if it shows a certificate."""

    def __init__(
        self, address: str, *, ca_pem: bytes | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        super().__init__()
        self._client = FlagClient(address, ca_pem=ca_pem, timeout_s=timeout_s)

    def get_metadata(self) -> Metadata:
        return Metadata("hanse")

    def shutdown(self) -> None:
        self._client.close()

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: Asked = None
    ) -> FlagResolutionDetails[bool]:
        found = self._choose(flag_key, evaluation_context)
        return _details(found.role == "canary", found)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: Asked = None
    ) -> FlagResolutionDetails[str]:
        found = self._choose(flag_key, evaluation_context)
        return _details(found.version, found)

    def resolve_object_details(
        self, flag_key: str, default_value: Structure, evaluation_context: Asked = None
    ) -> FlagResolutionDetails[Structure]:
        found = self._choose(flag_key, evaluation_context)
        value: Structure = {"role": found.role, **_metadata(found)}
        return _details(value, found)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: Asked = None
    ) -> FlagResolutionDetails[int]:
        raise TypeMismatchError("a model has no number: ask for a boolean, a string or an object")

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: Asked = None
    ) -> FlagResolutionDetails[float]:
        raise TypeMismatchError("a model has no number: ask for a boolean, a string or an object")

    async def resolve_boolean_details_async(
        self, flag_key: str, default_value: bool, evaluation_context: Asked = None
    ) -> FlagResolutionDetails[bool]:
        asked = (flag_key, default_value, evaluation_context)
        return await asyncio.to_thread(self.resolve_boolean_details, *asked)

    async def resolve_string_details_async(
        self, flag_key: str, default_value: str, evaluation_context: Asked = None
    ) -> FlagResolutionDetails[str]:
        asked = (flag_key, default_value, evaluation_context)
        return await asyncio.to_thread(self.resolve_string_details, *asked)

    async def resolve_object_details_async(
        self, flag_key: str, default_value: Structure, evaluation_context: Asked = None
    ) -> FlagResolutionDetails[Structure]:
        asked = (flag_key, default_value, evaluation_context)
        return await asyncio.to_thread(self.resolve_object_details, *asked)

    def _choose(self, model: str, asked: Asked) -> Choice:
        if asked is None or not asked.targeting_key:
            raise TargetingKeyMissingError("name whom you ask for: a targeting key")
        texts = {name: as_text(value) for name, value in asked.attributes.items()}
        context = {name: text for name, text in texts.items() if text is not None}
        try:
            return self._client.choose(model, asked.targeting_key, context)
        except HanseError as error:
            raise _as_theirs(error) from error


def _as_theirs(error: HanseError) -> OpenFeatureError:
    if isinstance(error, NotFound):
        return FlagNotFoundError(str(error))
    if isinstance(error, Rejected):
        return InvalidContextError(str(error))
    return ProviderNotReadyError(str(error))


def _metadata(found: Choice) -> dict[str, str | int]:
    return {
        "version": found.version,
        "release": str(found.release),
        "rollout": found.rollout,
        "generation": found.generation,
    }


def _details(value: T, found: Choice) -> FlagResolutionDetails[T]:
    return FlagResolutionDetails(
        value,
        reason=_REASONS.get(found.reason, Reason.UNKNOWN),
        variant=found.role,
        flag_metadata=dict(_metadata(found)),
    )
