"""Frozen settings: the base of every part's `Config`, `--set part.field=value`, and the hash that identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from ssl_inpaint.errors import UsageError, unknown_name


class Settings(BaseModel):
    """Hyperparameters of one part: frozen, checked at construction, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()  # fields that came after numbers had been recorded

    def identity(self) -> dict[str, Any]:
        """All that may change a number, in plain values: what a hash is taken of.

        Settings that came later are left out at their defaults, so that what was measured before keeps its identity.
        """
        fields = type(self).model_fields
        at_default = {name for name in self.later if getattr(self, name) == fields[name].default}
        inner = {name: value.identity() for name in fields if isinstance(value := getattr(self, name), Settings)}
        return {
            k: v for k, v in (self.model_dump(mode="json", exclude=at_default) | inner).items() if k not in at_default
        }


S = TypeVar("S", bound=Settings)


def parse_settings(assignments: Iterable[str]) -> dict[str, dict[str, str]]:
    """`["train.steps=10"]` to `{"train": {"steps": "10"}}`; UsageError where the form is another."""
    parsed: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        part, dot, field = key.partition(".")
        if not (equals and dot and part and field):
            raise UsageError(f"'{assignment}' is not a setting: write --set part.field=value.")
        parsed.setdefault(part, {})[field] = value
    return parsed


def refuse_unknown_parts(settings: Iterable[str], known: Iterable[str]) -> None:
    """UsageError where a part of `--set part.field=value` is not one of those that the verb has."""
    for part in settings:
        if part not in known:
            raise unknown_name("part to --set", part, known)


def override(config: S, part: str, changes: Mapping[str, str]) -> S:
    """`config` with the text values of `changes` put in, checked for name and type.

    Values are JSON, or text as it stands; lists may also be written with commas (`1,2,3`); `null` is none. UsageError
    names every setting that does not exist, or else every value that is not allowed.
    """
    fields = type(config).model_fields
    unknown = [str(unknown_name(f"{part} setting", name, fields)) for name in changes if name not in fields]
    if unknown:
        raise UsageError(" ".join(unknown))
    values = config.model_dump()
    for name, text in changes.items():
        is_list = isinstance(values[name], tuple | list)
        values[name] = text if fields[name].annotation is str else _value_of(text, is_list)
    return check(type(config), part, values)


def check(kind: type[S], part: str, values: Mapping[str, object]) -> S:
    """Settings of `kind` from plain values; UsageError with all that is wrong, in one sentence each."""
    try:
        return kind(**values)
    except ValidationError as error:
        wrong = "; ".join(_mistake(part, details) for details in error.errors())
        raise UsageError(f"Not allowed: {wrong}.") from None


def hash_of(*configs: object) -> str:
    """Twelve hexadecimal digits that identify settings: equal settings, equal hash, on any machine."""
    plain = [c.identity() if isinstance(c, Settings) else c for c in configs]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _mistake(part: str, details: ErrorDetails) -> str:
    name = ".".join([part, *map(str, details["loc"])])
    reason = details["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if details["type"] == "missing" or not details["loc"]:  # the input is then the settings as a whole
        return f"{name}: {reason}"
    return f"{name} = {details['input']!r}: {reason}"


def _value_of(text: str, is_list: bool) -> object:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if not is_list or isinstance(value, list):
        return value
    return [_value_of(item, is_list=False) for item in text.split(",") if item]
