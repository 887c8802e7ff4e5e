"""The commands of the sweep over files from packages."""

from __future__ import annotations

import json
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxplain.bench.wild.files import FILES
from onnxplain.bench.wild.page import markdown, passes
from onnxplain.files import replacing
from onnxplain.machine import machine
from onnxplain.version import __version__

HERE = Path(__file__).resolve().parents[2]
RESULTS, PAGE = HERE / "bench/results/wild.json", HERE / "docs/wild.md"
Cache = Annotated[Path, typer.Option(help="The folder that packages are downloaded to.")]
CACHE = Path.home() / ".cache/onnxplain/wild"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def run(
    only: Annotated[str, typer.Option(help="A pattern of names.")] = "*", cache: Cache = CACHE
) -> None:
    """Download the files, make an entry of each in a process of its own, then the page."""
    for name in FILES:
        if fnmatchcase(name, only):
            made = _apart(name, cache)
            _write(name, made)
            typer.echo(f"{'✓' if passes(made) else '✗'} {name}")
    table()


def _apart(name: str, cache: Path) -> dict[str, Any]:
    """An entry, made in a process of its own."""
    child = [sys.executable, "-P", "-m", "onnxplain.bench.wild", "one", name, "--cache", str(cache)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    if done.returncode:
        end = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return {"reason": f"the process ended with status {done.returncode}: {end[0][:300]}"}
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def _write(name: str, made: dict[str, Any]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"files": {}}
    results["files"][name] = made
    results["files"] = {n: results["files"][n] for n in FILES if n in results["files"]}
    results |= {"onnxplain": __version__, "machine": machine()}
    with replacing(RESULTS) as beside:
        beside.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


@app.command()
def one(name: str, cache: Cache = CACHE) -> None:
    """Print one file's entry as JSON."""
    from onnxplain.bench.wild.entry import entry
    from onnxplain.bench.wild.files import fetch

    typer.echo(json.dumps(entry(FILES[name], fetch(FILES[name], cache))))


@app.command()
def table() -> None:
    """Make the page from the entries there are."""
    with replacing(PAGE) as beside:
        beside.write_text(markdown(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    app()
