"""Hooks elsewhere: a CloudEvent by HTTP, or a run of a Kubeflow pipeline.

Both are asked until they have taken it, with growing pauses, and always with the same key. What
comes of it is a release that names that key; nothing in an answer is believed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from hanse.core.errors import Unavailable
from hanse.daemon.healing_file import HttpCall, Pipeline
from hanse.daemon.hooks.asking import Asking, HookFailed
from hanse.daemon.private_files import read_private
from hanse.gateways.http_call import call

ANSWER_BYTES_MAX = 256 * 1024
PAUSE_S, PAUSE_MAX_S = 1.0, 300.0
OVER = {"FAILED", "CANCELED"}
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


async def post_event(hook: HttpCall, asking: Asking) -> None:
    """Returns once the event is taken. Raises `HookFailed`."""
    body = asking.cloud_event()
    headers = {"content-type": "application/cloudevents+json; charset=utf-8", **_bearer(hook.token)}
    await _asked(hook, "POST", hook.url, body, headers)


async def start_run(hook: Pipeline, asking: Asking) -> str:
    """The id of the run for this key, which may have been started before. Raises `HookFailed`."""
    runs, headers = f"{hook.url}/apis/v2beta1/runs", _bearer(hook.token)
    title = f"hanse-retrain-{asking.key}"
    named = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": title}]}
    query = f"?page_size=1&filter={quote(json.dumps(named))}"
    if hook.experiment_id:
        query += f"&experiment_id={quote(hook.experiment_id)}"
    # The API has no idempotency key, so a run that an earlier call has left is looked for.
    found = _json(await _asked(hook, "GET", runs + query, b"", headers)).get("runs") or []
    if not any(run.get("display_name") == title for run in found):
        body = json.dumps(_run(hook, asking, title)).encode()
        posted = {**headers, "content-type": "application/json"}
        found = [_json(await _asked(hook, "POST", runs, body, posted))]
    run_id = found[0].get("run_id")
    if not isinstance(run_id, str) or not run_id:
        raise HookFailed("the pipeline server did not say which run it started")
    return run_id


async def run_state(hook: Pipeline, run_id: str) -> str:
    """Such as RUNNING or SUCCEEDED. Raises `HookFailed`."""
    url = f"{hook.url}/apis/v2beta1/runs/{quote(run_id, safe='')}"
    return str(_json(await _asked(hook, "GET", url, b"", _bearer(hook.token))).get("state", ""))


def _run(hook: Pipeline, asking: Asking, title: str) -> dict[str, Any]:
    named = {"pipeline_id": hook.pipeline_id, "pipeline_version_id": hook.version_id}
    more = {"experiment_id": hook.experiment_id, "service_account": hook.service_account}
    data = asking.data()
    # A pipeline refuses parameters that it does not declare, so only those are sent.
    parameters = {key: _filled(text, data) for key, text in hook.parameters.items()}
    return {
        "display_name": title,
        "description": f"{asking.model} {asking.version} in {asking.region}: {asking.cause}",
        "pipeline_version_reference": {k: v for k, v in named.items() if v},
        "runtime_config": {"parameters": parameters},
        **{k: v for k, v in more.items() if v},
    }


def _filled(text: str, data: Mapping[str, str]) -> str:
    for name, value in data.items():
        text = text.replace(f"{{{name}}}", value)
    return text


async def _asked(
    hook: HttpCall | Pipeline, method: str, url: str, body: bytes, headers: Mapping[str, str]
) -> bytes:
    pause_s = PAUSE_S
    for attempt in range(1, hook.attempts + 1):
        signed = {**headers, **_signed(hook, body)}
        try:
            status, answer = await call(
                method,
                url,
                body,
                signed,
                within_s=hook.timeout_s,
                answer_bytes_max=ANSWER_BYTES_MAX,
            )
        except Unavailable as error:
            why = error.message
        else:
            if 200 <= status < 300:
                return answer
            why = f"it answered {status}"
            if status not in _WORTH_ANOTHER_TRY:
                raise HookFailed(f"{hook.url}: {why}")
        if attempt < hook.attempts:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
    raise HookFailed(f"{hook.url}: {why}, asked {hook.attempts} times")


def _signed(hook: HttpCall | Pipeline, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks; anew for each attempt, since they carry the time."""
    if not isinstance(hook, HttpCall) or hook.secret is None:
        return {}
    text = read_private(hook.secret).decode("ascii", "replace").strip()
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise HookFailed(f"{hook.secret.name} holds no whsec_ secret in base64") from None
    key, at = json.loads(body)["id"], str(int(time.time()))
    digest = hmac.digest(secret, f"{key}.{at}.".encode() + body, hashlib.sha256)
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": key, "webhook-timestamp": at, "webhook-signature": signature}


def _bearer(token: Any) -> dict[str, str]:
    if token is None:
        return {}
    return {"authorization": f"Bearer {read_private(token).decode('ascii', 'replace').strip()}"}


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HookFailed("the pipeline server did not answer with a JSON object")
    return found
