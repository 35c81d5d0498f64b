"""The real OpenFeature SDK, unmodified, against a real agent: both doors make the same choice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import tritonclient.grpc.aio as triton
from digit_releases import Release
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason
from test_agent import Region, X, configured, files, region, running, until

from hanse.core.audience import Audience, Rule
from hanse.core.routing import bucket, threshold
from hanse.edge import switch
from hanse.edge.agent import Agent
from hanse.edge.config import Config
from hanse.edge.serving import RoutedServing
from hanse.openfeature import HanseProvider
from hanse.rpc.inference_server import serve

__all__ = ["files", "region"]  # fixtures
DOCKS = Audience("customer", (Rule("device", "in", ("dock",)),))


@dataclass
class Node:
    agent: Agent
    address: str
    flags: OpenFeatureClient
    client: triton.InferenceServerClient

    async def told(self, unit: str, **attributes: object) -> tuple[bool, str, str, object]:
        """What the SDK says: canary or not, version, variant, reason."""
        asked = EvaluationContext(unit, attributes)  # type: ignore[arg-type]  # test values
        found = await self.flags.get_string_details_async("digits", "?", asked)
        canary = await asyncio.to_thread(self.flags.get_boolean_value, "digits", False, asked)
        return canary, found.value, str(found.variant), found.reason

    async def answered(self, unit: str, **attributes: object) -> tuple[str, str]:
        """What the model says: version and role."""
        tensor = triton.InferInput("X", [1, 64], "FP32").set_data_from_numpy(X[:1])
        context = {f"context.{name}": value for name, value in attributes.items()}
        answer = await self.client.infer(
            "digits", [tensor], parameters={"routing_key": unit, **context}
        )
        response = answer.get_response()
        return response.model_version, response.parameters["role"].string_param


@contextlib.asynccontextmanager
async def node(config: Config) -> AsyncIterator[Node]:
    async with running(config) as agent:
        serving = RoutedServing(agent.router)
        server = await serve(config.listen, serving, agent.telemetry.label, "0")
        api.set_provider(HanseProvider(config.listen, timeout_s=5.0))
        async with triton.InferenceServerClient(config.listen) as client:
            yield Node(agent, config.listen, api.get_client(), client)
        api.shutdown()
        await server.stop(0)


async def until_ready(region: Region, old: Release, new: Release, **fields: object) -> None:
    given = {"active": old.digest, "candidate": new.digest, "weight_bp": 3000, **fields}
    region.assign(old, new, last_good=(old.digest,), rollout="r-1", **given)
    await region.until(lambda m: m.running == old.digest and m.candidate_ready)


async def test_the_sdk_is_told_what_the_model_answers(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1, v2 = files["v1"], files["v2"]
    region.offer(v1, v2)
    async with node(configured(region, tmp_path)) as here:
        await until_ready(region, v1, v2, audience=DOCKS)
        seen = set()
        for i in range(40):
            unit = {"device": "dock", "customer": f"c{i}"}
            canary, version, variant, reason = await here.told(f"session-{i}", **unit)
            assert (version, variant) == await here.answered(f"session-{i}", **unit)
            assert canary == (bucket("s", f"c{i}") < threshold(3000))
            assert (reason, variant == "canary") == (Reason.SPLIT, canary)
            again = await here.told(f"another-{i}", **unit, page=i, dark=True)
            assert again[:3] == (canary, version, variant), "the customer is the unit"
            seen.add(variant)
        assert seen == {"canary", "stable"}
        outside = await here.told("session-1", device="gate", customer="c1")
        assert outside[1:] == (v1.manifest.version, "stable", Reason.DEFAULT)
        assert await here.answered("session-1", device="gate", customer="c1") == outside[1:3]


async def test_the_details_name_the_release_and_its_rollout(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1, v2 = files["v1"], files["v2"]
    region.offer(v1, v2)
    async with node(configured(region, tmp_path)) as here:
        await until_ready(region, v1, v2, weight_bp=10_000)
        asked = EvaluationContext("u")
        found = await asyncio.to_thread(here.flags.get_object_details, "digits", {}, asked)
        assert found.value == {"role": "canary", **found.flag_metadata}
        assert found.flag_metadata == {
            "release": str(v2.digest),
            "version": v2.manifest.version,
            "rollout": "r-1",
            "generation": 1,
        }


async def test_who_cannot_be_told_gets_the_default_and_why(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1 = files["v1"]
    region.offer(v1)
    async with node(configured(region, tmp_path)) as here:
        region.assign(v1, active=v1.digest)
        await region.until(lambda m: m.running == v1.digest)
        ask = here.flags.get_string_details_async
        known = await ask("digits", "?", EvaluationContext("u"))
        assert (known.value, known.reason) == (v1.manifest.version, Reason.STATIC)
        codes = {
            "nobody asked": (await ask("digits", "?")).error_code,
            "no such model": (await ask("other", "?", EvaluationContext("u"))).error_code,
            "no such name": (
                await ask("digits", "?", EvaluationContext("u", {"a b": "x"}))
            ).error_code,
            "no number": (
                await here.flags.get_integer_details_async("digits", 7, EvaluationContext("u"))
            ).error_code,
        }
        assert codes == {
            "nobody asked": ErrorCode.TARGETING_KEY_MISSING,
            "no such model": ErrorCode.FLAG_NOT_FOUND,
            "no such name": ErrorCode.INVALID_CONTEXT,
            "no number": ErrorCode.TYPE_MISMATCH,
        }
        api.set_provider(HanseProvider("127.0.0.1:1", timeout_s=5.0))
        gone = await api.get_client().get_boolean_details_async(
            "digits", True, EvaluationContext("u")
        )
        assert (gone.value, gone.error_code) == (True, ErrorCode.PROVIDER_NOT_READY)


# -- kill switches -----------------------------------------------------------------------------


async def test_what_the_region_turns_off_is_off_with_the_next_word_and_stays_off_offline(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    """One hop: the assignment. The units are the same after a restart without any daemon."""
    v1, v2 = files["v1"], files["v2"]
    region.offer(v1, v2)
    config = configured(region, tmp_path)
    unit = next(f"u{i}" for i in range(100) if bucket("s", f"u{i}") < threshold(3000))
    async with node(config) as here:
        await until_ready(region, v1, v2)
        assert await here.answered(unit) == (v2.manifest.version, "canary")
    await region.stop()
    region.reports.clear()
    async with node(config) as here:  # from its disk alone: the unit has not moved
        await until(lambda: here.agent.router.models() == ("digits",))
        await until(lambda: len(here.agent.router.loaded("digits")) == 2)
        assert await here.answered(unit) == (v2.manifest.version, "canary")
        assert (await here.told(unit))[1] == v2.manifest.version
    await region.start()
    async with node(configured(region, tmp_path)) as here:
        region.assign(v1, active=v1.digest, last_good=(v1.digest,), barred=(v2.digest,))
        await region.until(lambda m: m.running == v1.digest and v2.digest not in m.ready)
        assert await here.answered(unit) == (v1.manifest.version, "stable")
    await region.stop()
    async with node(config) as here:
        await until(lambda: here.agent.router.models() == ("digits",))
        await until(lambda: here.agent.device.report()[0].running is not None)
        assert await here.answered(unit) == (v1.manifest.version, "stable")
        assert (await here.told(unit))[0] is False


async def test_a_machine_turns_a_release_off_by_itself_and_says_so_later(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1, v2 = files["v1"], files["v2"]
    region.offer(v1, v2)
    config = configured(region, tmp_path)
    async with node(config) as here:
        await until_ready(region, v1, v2, weight_bp=10_000)
        await region.stop()
        assert (await here.told("u"))[0] is True
        switch.leave(config.state, "digits", str(v2.digest), "INC-7")
        await until(lambda: not list(switch.left(config.state)))
        assert await here.answered("u") == (v1.manifest.version, "stable")
    async with node(config) as here:
        await until(lambda: here.agent.router.models() == ("digits",))
        await until(lambda: here.agent.device.report()[0].running is not None)
        assert (await here.told("u"))[1:3] == (v1.manifest.version, "stable")
        region.reports.clear()
        (said,) = here.agent.device.report()
        assert said.failed == {v2.digest: "switched off here: INC-7"}


async def test_what_nothing_could_answer_for_stays_on(
    region: Region, files: dict[str, Release], tmp_path: Path
) -> None:
    v1 = files["v1"]
    region.offer(v1)
    config = configured(region, tmp_path)
    async with node(config) as here:
        region.assign(v1, active=v1.digest)
        await region.until(lambda m: m.running == v1.digest)
        switch.leave(config.state, "digits", str(v1.digest), "INC-8")
        (config.state / switch.FOLDER / "broken.json").write_bytes(b"{")
        await until(lambda: not list(switch.left(config.state)))
        assert await here.answered("u") == (v1.manifest.version, "stable")
