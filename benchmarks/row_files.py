"""The folder rows/ is the registry of what `throughput.py` measures: one file each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROWS = Path(__file__).parent / "rows"


@dataclass(frozen=True)
class Row:
    """A file in rows/ that defines NAME and `measure`."""

    name: str
    module: str
    description: str
    is_optional: bool  # True: measured only where it is asked for by name


def known_rows() -> dict[str, Row]:
    """By NAME; read from source text, so that a row is imported only when it is measured."""
    found = {}
    for file in sorted(ROWS.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        values = dict(_constants(tree))
        name = values.get("NAME")
        if "measure" in functions and isinstance(name, str):
            description = (ast.get_docstring(tree) or "").split("\n")[0]
            found[name] = Row(name, file.stem, description, bool(values.get("IS_OPTIONAL", False)))
    return found


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value.value
