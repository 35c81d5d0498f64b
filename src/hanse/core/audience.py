"""Whom a rollout is for: which requests take part, and by what a unit is told from others.

    audience: {unit: customer,
               target: [{attribute: device, in: [dock, gate]}, {attribute: firmware, atLeast: 3}]}

A request carries a context, texts by name; the node's own labels stand under it. It takes part if
every rule of `target` is met. A rule about an attribute that is not there is met only by
`present: false`. Who does not take part is answered by the stable release and counted in neither
arm: an arm of all the others would be compared with people of another kind.

`unit` names the attribute whose value falls into a bucket (see `routing`): the same customer gets
the same release on every node and after every restart, with nothing remembered. Without it the
routing key is the unit, else the request id. A request without the named attribute takes no part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hanse.core.errors import InvalidSpec
from hanse.core.rollout.fields import Fields, distinct, fail, listed, number

RULES_MAX: Final = 16
VALUES_MAX: Final = 64
VALUE_BYTES_MAX: Final = 256
CONTEXT_MAX: Final = 32
Context = Mapping[str, str]
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
OPERATORS: Final = ("in", "notIn", "startsWith", "atLeast", "below", "present")


@dataclass(frozen=True, slots=True)
class Rule:
    """`values`: several of `in`, `notIn`, `startsWith`; one number or bool of the others."""

    attribute: str
    operator: str
    values: tuple[str, ...] | float | bool

    def met(self, context: Context) -> bool:
        value = context.get(self.attribute)
        if self.operator == "present":
            return (value is not None) is self.values
        if value is None:
            return False
        if isinstance(self.values, tuple):
            if self.operator == "startsWith":
                return value.startswith(self.values)
            return (value in self.values) is (self.operator == "in")
        found = _number(value)
        at_least = found >= self.values  # NaN is neither at least nor below
        return at_least if self.operator == "atLeast" else found < self.values

    def mapping(self) -> dict[str, object]:
        values = list(self.values) if isinstance(self.values, tuple) else self.values
        return {"attribute": self.attribute, self.operator: values}


@dataclass(frozen=True, slots=True)
class Audience:
    unit: str = ""
    target: tuple[Rule, ...] = ()

    def admits(self, context: Context) -> bool:
        return (not self.unit or self.unit in context) and all(r.met(context) for r in self.target)

    def unit_of(self, context: Context, otherwise: str) -> str:
        return context.get(self.unit, otherwise) if self.unit else otherwise

    def mapping(self) -> dict[str, object]:
        unit = {"unit": self.unit} if self.unit else {}
        return {**unit, "target": [rule.mapping() for rule in self.target]}


EVERYBODY: Final = Audience()


def parse_audience(value: object, path: str) -> Audience:
    """Raises `InvalidSpec` naming the path."""
    fields = Fields.of(value, path, ("unit", "target"))
    none: tuple[Rule, ...] = ()
    rules = fields.optional("target", listed(_rule, empty=True), none)
    if len(rules) > RULES_MAX:
        raise fail(fields.at("target"), f"{len(rules)} rules", f"write at most {RULES_MAX}")
    return Audience(fields.optional("unit", _attribute, ""), rules)


def check_context(context: Mapping[str, str]) -> Context:
    """What a caller says of its request. Raises `InvalidSpec` beyond the bounds."""
    if len(context) > CONTEXT_MAX:
        raise InvalidSpec(f"a context of {len(context)} attributes", fix=f"at most {CONTEXT_MAX}")
    for name, value in context.items():
        if not _ATTRIBUTE.fullmatch(name):
            raise InvalidSpec(
                f"context: {name[:80]!r} is not the name of an attribute",
                fix="write a letter, then letters, digits, _ . or -, 64 in all",
            )
        if len(value.encode(errors="replace")) > VALUE_BYTES_MAX:
            raise InvalidSpec(f"context.{name}: longer than {VALUE_BYTES_MAX} bytes")
    return context


def as_text(value: object) -> str | None:
    """How a value of a caller's language is written in a context; None for what has no form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        whole = math.isfinite(value) and value == int(value)
        return str(int(value)) if whole else repr(value)
    return value if isinstance(value, str) else None


def _rule(value: object, path: str) -> Rule:
    fields = Fields.of(value, path, ("attribute", *OPERATORS))
    attribute = fields.required("attribute", _attribute, "device")
    written = [key for key in fields.values if key != "attribute"]
    if len(written) != 1:
        raise fail(
            path, f"{len(written)} operators in one rule", f"write one of {', '.join(OPERATORS)}"
        )
    operator = str(written[0])
    where, values = fields.at(operator), fields.values[operator]
    if operator == "present":
        if not isinstance(values, bool):
            raise fail(where, f"{values!r:.80} is not usable", "write true or false")
        return Rule(attribute, operator, values)
    if operator in ("atLeast", "below"):
        return Rule(attribute, operator, number(-1e15, 1e15)(values, where))
    texts = listed(_value)(values, where)
    if len(texts) > VALUES_MAX:
        raise fail(where, f"{len(texts)} values", f"write at most {VALUES_MAX}")
    distinct(texts, where)
    return Rule(attribute, operator, texts)


def _attribute(value: object, path: str) -> str:
    if isinstance(value, str) and _ATTRIBUTE.fullmatch(value):
        return value
    raise fail(
        path,
        f"{value!r:.80} is not the name of an attribute",
        "write a letter, then letters, digits, _ . or -",
    )


def _value(value: object, path: str) -> str:
    text = as_text(value)
    if text is None or not text or len(text.encode(errors="replace")) > VALUE_BYTES_MAX:
        raise fail(path, f"{value!r:.80} is not usable", "write a text, a number, true or false")
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
