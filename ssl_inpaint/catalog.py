"""The folders are the registry: which parts exist, their one-line descriptions, and how to load one by name.

Reads source text only, so that `ssl-inpaint list` answers without importing torch.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tokenize
from functools import cache
from pathlib import Path
from types import ModuleType

from ssl_inpaint.errors import UsageError, unknown_name

BLANK = (tokenize.COMMENT, tokenize.NL)
BUILDS = re.compile(r"^def build\(", re.MULTILINE)
KINDS = {
    "data": "data set",
    "encoders": "encoder",
    "pretext": "pretext task",
    "transfer": "transfer task",
    "descriptors": "descriptor",
    "inpainters": "inpainter",
    "recipes": "recipe",
    "protocols": "protocol",
    "benches": "bench",
}


def parts(kind: str) -> dict[str, str]:
    """Name to first docstring line of every part in the folder `kind`; a part is a module that defines `build`."""
    found = {}
    for file in sorted((Path(__file__).parent / kind).glob("*.py")):
        state = file.stat()
        description = _description(file, state.st_mtime_ns, state.st_size)
        if description is not None:
            found[file.stem] = description
    return found


@cache
def load(kind: str, name: str) -> ModuleType:
    """The module of the part `name`; UsageError with the nearest name where there is none."""
    known = parts(kind)
    if name not in known:
        raise unknown_name(KINDS[kind], name, known)
    return importlib.import_module(f"ssl_inpaint.{kind}.{name}")


def split_argument(spec: str) -> tuple[str, str]:
    """`name:argument` in its two halves; the argument is empty where there is no colon."""
    name, _, argument = spec.partition(":")
    if not name:
        raise UsageError(f"'{spec}' names no part: write NAME or NAME:ARGUMENT.")
    return name, argument


@cache  # a run asks a dozen times
def _description(file: Path, changed: int, size: int) -> str | None:
    """The first docstring line of a part; None where the file, as it is since `changed`, defines no `build`.

    Nothing but the docstring is parsed: all of every file takes longer than the rest of `ssl-inpaint list`.
    """
    with tokenize.open(file) as source:
        text = source.read()
        if not BUILDS.search(text):
            return None
        source.seek(0)
        first = next(token for token in tokenize.generate_tokens(source.readline) if token.type not in BLANK)
    return inspect.cleandoc(ast.literal_eval(first.string)).split("\n")[0] if first.type == tokenize.STRING else ""
