"""The router as the inference protocol sees it: bytes in, bytes and provenance out."""

from __future__ import annotations

from collections.abc import Sequence

from hanse.core.audience import Context, check_context
from hanse.core.errors import InvalidSpec, NotFound
from hanse.core.serving import Answer, Choice, ModelFacts, RawTensor
from hanse.edge.inference import from_raw, to_raw
from hanse.edge.router import Router


class RoutedServing:
    """`rpc.inference_service.Serving` over one router."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def models(self) -> Sequence[str]:
        return self._router.models()

    def facts(self, model: str, version: str) -> ModelFacts:
        entry, loaded = self._router.entry(model), self._router.loaded(model)
        versions = tuple(served.version for served in loaded)
        if version:
            loaded = tuple(s for s in loaded if version in (s.version, str(s.release)))
            if not loaded:
                raise NotFound(f"version {version[:80]!r} of {model} is not loaded here")
        elif entry.default is None:
            return ModelFacts(model, ready=False, versions=versions)
        served = loaded[0]
        return ModelFacts(
            model,
            ready=True,
            versions=versions,
            inputs=served.model.inputs,
            outputs=served.model.outputs,
            release=served.release,
            counts=(served.answers, served.failures, served.computed_ns),
        )

    async def infer(
        self,
        model: str,
        version: str,
        request_id: str,
        routing_key: str,
        inputs: Sequence[RawTensor],
        outputs: Sequence[str],
        context: Context,
    ) -> Answer:
        feeds = {tensor.name: from_raw(tensor) for tensor in inputs}
        if len(feeds) != len(inputs):
            raise InvalidSpec("an input is given twice")
        asked = (model, version, request_id, routing_key)
        found = await self._router.infer(*asked, feeds, outputs, check_context(context))
        return Answer(
            tuple(to_raw(name, array) for name, array in found.outputs.items()),
            found.release,
            found.version,
            found.role,
            found.rollout,
        )

    def choose(self, model: str, unit: str, context: Context) -> Choice:
        """What `infer` would choose for this unit, and why; nothing is computed or counted."""
        found = self._router.choose(model, "", unit, check_context(context))
        route, served = found.entry.route, found.served
        return Choice(
            served.release,
            served.version,
            found.role,
            found.reason,
            route.rollout,
            route.generation,
        )
