"""Ours against the plain way to write the same thing, in one process: what each row measures is in its file in rows/.

    python benchmarks/throughput.py --device cpu
    python benchmarks/throughput.py --row training --rounds 20

Every line is printed as it comes and kept in results/throughput.json, the newest of each what and size on each machine;
results/throughput.md is rendered from that. Lines of --small are printed only. `--help` lists the rows.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from measuring import Measured
from refusing import Script
from row_files import Row, known_rows
from throughput_table import KEY, order_of, render

from ssl_inpaint import files, records
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.progress import say

SCHEMA = 1


def _epilog() -> str:
    lines = [f"{row.name}: {row.description}{' (by name only)' * row.is_optional}" for row in known_rows().values()]
    return "\n\n".join(["Rows:", *lines])


@click.command(cls=Script, epilog=_epilog())
@click.option("--row", "names", multiple=True, help="What to measure; may be repeated. All but the longest, if absent.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="Of both ways, in turn.")
@click.option("--small", "is_small", is_flag=True, help="Tiny sizes, to see that it runs: nothing is written.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True)
def throughput(names: tuple[str, ...], device: str, rounds: int, is_small: bool, output: Path) -> None:
    """Measures the chosen rows and keeps their lines."""
    rows, chosen = _chosen(names), _device(device)
    path = output / "throughput.json"
    read(path)  # a broken one is better found now than when there is something to write to it
    for row in rows:
        say(f"{row.name}: {row.description}")
        for line in _measured(row, chosen, rounds, is_small):
            click.echo(sentence(line))
            if not is_small:
                write(output, with_line(read(path), entry_of(line, row.name)))  # others may have written meanwhile


def sentence(line: Measured) -> str:
    """One line as text: what was compared, the ratio and whether it is what was aimed at."""
    aim = "" if line.reach is None else f", aim {line.reach:g}x: {'met' if line.ratio >= line.reach else 'NOT met'}"
    return (
        f"{line.what} ({line.size}): {line.ours:,.4g} {line.unit} against {line.other:,.4g} by {line.compared_with}: "
        f"{line.ratio:.2f}x ({line.lowest:.2f} to {line.highest:.2f} over {line.rounds}){aim}. {line.agreement}."
    )


def hardware(device: torch.device) -> str:
    """What the line was measured on: a GPU by its name; a CPU by its model, vector instructions, cores and threads."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = f"{models[0] if models else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    cpu += f", {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name(device)}; host: {cpu}" if device.type == "cuda" else cpu


def entry_of(line: Measured, row: str) -> dict[str, Any]:
    """The line with where it comes from: row, hardware, commit, versions and time."""
    device = torch.device("cpu" if line.device.startswith("cpu") else "cuda")
    origin = records.provenance(line.device, 0.0, 0.0, 1)
    kept = {name: value for name, value in origin.items() if name in ("commit", "versions", "created_at")}
    if not kept["commit"].endswith("-dirty"):
        kept["commit"] = records.commit_of(Path(__file__))  # of what is measured, and of what measures
    return {**asdict(line), **kept, "row": row, "hardware": hardware(device)}


def with_line(entries: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """`entries` with the new one in the place of the older one of its what, size and hardware, if there is one."""
    others = [entry for entry in entries if any(entry[name] != new[name] for name in KEY)]
    return sorted([*others, new], key=order_of)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines kept in a file, none where there is no file; UsageError where it is not one of ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): mend it, or choose another --output.") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("lines"), list):
        raise UsageError(f"{path} is no file of lines with schema {SCHEMA}: move it away, or choose another --output.")
    return content["lines"]


def write(output: Path, entries: list[dict[str, Any]]) -> None:
    """throughput.json and the table throughput.md."""
    files.write_json(output / "throughput.json", {"schema": SCHEMA, "lines": entries})
    files.write_text(output / "throughput.md", render(entries))


def _measured(row: Row, device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    measure: Callable[[torch.device, int, bool], Iterator[Measured]]
    measure = importlib.import_module(f"rows.{row.module}").measure
    return measure(device, rounds, is_small)


def _chosen(names: tuple[str, ...]) -> list[Row]:
    known = known_rows()
    for name in names:
        if name not in known:
            raise unknown_name("row", name, known)
    return [known[name] for name in dict.fromkeys(names)] or [row for row in known.values() if not row.is_optional]


def _device(name: str) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise UsageError("--device cuda was asked for and torch sees no CUDA device: use --device cpu.")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


if __name__ == "__main__":
    throughput()
