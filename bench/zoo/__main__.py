"""The commands of the zoo."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from onnxplain.bench.zoo.networks import TRANSFORMERS, networks
from onnxplain.bench.zoo.page import markdown, passes, stays
from onnxplain.files import replacing

HERE = Path(__file__).resolve().parents[2]
Results = Annotated[Path, typer.Option(help="The JSON file with the entries.")]
Page = Annotated[Path, typer.Option(help="The Markdown page made from it.")]
Only = Annotated[str, typer.Option(help="A pattern of names, `timm/*`.")]
Again = Annotated[str, typer.Option(help="all: also what has an entry; failed: and does not pass.")]
Jobs = Annotated[int, typer.Option(help="Networks at a time.")]
Variants = Annotated[list[str] | None, typer.Option(help="Kinds of exports, `plain`; else all.")]
Threads = Annotated[int, typer.Option(help="Of PyTorch and the runtime.")]
RESULTS, PAGE = HERE / "bench/results/zoo.json", HERE / "docs/zoo.md"
CLAIMS, MAPS = HERE / "bench/results/claims.json", HERE / "bench/results/maps.json"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def run(
    only: Only = "*",
    again: Again = "",
    jobs: Jobs = 2,
    timeout: Annotated[float, typer.Option(help="Seconds for one network.")] = 1800,
    results: Results = RESULTS,
    page: Page = PAGE,
) -> None:
    """Make the entries that are missing, then the page. Hours for all; cut it off at will."""
    _sweep(["one"], passes, only, again, jobs, timeout, results)
    table(results, page)


@app.command()
def claims(
    only: Only = "*",
    again: Again = "",
    jobs: Jobs = 1,
    timeout: Annotated[float, typer.Option(help="Seconds for one network.")] = 3600,
    results: Results = CLAIMS,
    variants: Variants = None,
) -> None:
    """Ask ONNX Runtime's CUDA provider what leaves the GPU, every way of every network. Hours."""
    from onnxplain.bench.zoo.claims import VARIANTS, merged

    if unknown := [variant for variant in variants or () if variant not in VARIANTS]:
        raise typer.BadParameter(f"no variant {unknown[0]!r}: {', '.join(VARIANTS)}")

    def good(entry: dict[str, Any]) -> bool:
        return stays(entry) and set(variants or VARIANTS) <= set(entry["variants"])

    options = [f"--variants={variant}" for variant in variants or ()]
    _sweep(["one-claims", *options], good, only, again, jobs, timeout, results, merged)


@app.command()
def maps(
    only: Only = "*",
    again: Again = "",
    jobs: Jobs = 1,
    timeout: Annotated[float, typer.Option(help="Seconds for one network.")] = 1800,
    results: Results = MAPS,
) -> None:
    """Ask timm's transformers for maps with no layer named. Half an hour; cut it off at will."""
    from onnxplain.bench.zoo.maps import answered

    names = [f"timm/{name}" for name in TRANSFORMERS]
    _sweep(["one-maps"], answered, only, again, jobs, timeout, results, names=names)


def _sweep(
    command: Sequence[str],
    good: Callable[[dict[str, Any]], bool],
    only: str,
    again: str,
    jobs: int,
    timeout: float,
    results: Path,
    merged: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda before, made: made,
    names: Sequence[str] | None = None,
) -> None:
    """Make the entries that are missing, each by a command of this module in its own process.

    Args:
        names: of the networks; all by default.
    """
    from onnxplain.bench.zoo.sweep import read, sweep

    have = read(results)["networks"]
    wanted = [name for name in names or networks() if fnmatch.fnmatchcase(name, only)]
    if again != "all":
        kept = {name for name, e in have.items() if good(e) or again != "failed"}
        wanted = [name for name in wanted if name not in kept]
    console = Console()
    with Progress(
        TextColumn("zoo"), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("zoo", total=len(wanted))

        def report(name: str, made: dict[str, Any]) -> None:
            console.print(f"{'✓' if good(made) else '✗'} {name}", highlight=False)
            bar.advance(task)

        sweep(wanted, results, jobs, timeout, report, command, merged)


@app.command()
def table(
    results: Results = RESULTS, page: Page = PAGE, asked: Path = CLAIMS, maps: Path = MAPS
) -> None:
    """Make the page from the entries there are, the CUDA provider's claims, and the maps."""
    from onnxplain.bench.zoo.sweep import read

    others = (read(path) if path.exists() else None for path in (asked, maps))
    with replacing(page) as beside:
        beside.write_text(markdown(read(results), *others))


@app.command()
def one(name: str, threads: Threads = 1) -> None:
    """Print one network's entry as JSON."""
    import torch

    from onnxplain.bench.zoo.entry import entry

    torch.set_num_threads(threads)
    typer.echo(json.dumps(entry(name)))


@app.command()
def one_claims(name: str, threads: Threads = 1, variants: Variants = None) -> None:
    """Print what the CUDA provider does with one network's graphs as JSON."""
    import torch

    from onnxplain.bench.zoo.claims import VARIANTS, claims_of

    torch.set_num_threads(threads)
    typer.echo(json.dumps(claims_of(name, variants or VARIANTS)))


@app.command()
def one_maps(name: str, threads: Threads = 1) -> None:
    """Print what maps one network's files give as JSON."""
    import torch

    from onnxplain.bench.zoo.maps import maps_of

    torch.set_num_threads(threads)
    typer.echo(json.dumps(maps_of(name)))


if __name__ == "__main__":
    app()
