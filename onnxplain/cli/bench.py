"""The command `onnxplain bench`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from onnxplain import machine
from onnxplain.asking import check_source
from onnxplain.cli.app import command
from onnxplain.cli.console import err, out, say, shown
from onnxplain.cli.options import as_integers
from onnxplain.cli.progress import progress_bar
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.reading import parsed, text

if TYPE_CHECKING:
    from onnxplain.bench.suite.suite import Plan


@command
def bench(
    networks: Annotated[
        list[str] | None,
        typer.Argument(help="Networks by name.", show_default="seven of all kinds"),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Two networks, one image, one target, no peers: under 3 minutes."
        ),
    ] = False,
    batches: Annotated[str, typer.Option(help="Images per run, with commas between.")] = "1,8",
    targets: Annotated[str, typer.Option(help="Targets per image, with commas between.")] = "1,5",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds that count.")] = 20,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of every candidate.", show_default="all")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for the GPU.")] = "cpu",
    path: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the results here, as JSON.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Earlier results: exit with 1 if a ratio has got worse than there."),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Instead: where one explanation's time goes, by operator."),
    ] = False,
    launches: Annotated[
        bool,
        typer.Option(
            "--launches",
            help="Instead: the nodes and kernels of an explanation and of its forward pass, as a "
            "GPU would run them; no GPU is needed.",
        ),
    ] = False,
) -> None:
    """Measure explanations on every runtime here, beside PyTorch and other packages.

    All of a network and batch run in turns, so that what else the machine does meets all alike;
    the cosine to the float64 reference stands beside each time. Compare ratios, not milliseconds.

    \b
        onnxplain bench --quick
        onnxplain bench resnet50 -o mine.json          # everything that explains ResNet-50
        onnxplain bench --quick --check mine.json      # has a ratio got worse?
        onnxplain bench resnet50 --profile             # what to make faster next
        onnxplain bench resnet50 --launches            # what a GPU at batch 1 waits for
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"the device is cpu or cuda, not {device!r}")
    if profile and (quick or check or device != "cpu"):
        raise InputError("--profile goes with networks, --threads and --out alone")
    if launches and (profile or quick or device != "cpu"):
        raise InputError("--launches goes with networks, --out and --check alone")
    if path is not None and not path.parent.is_dir():
        raise InputError(f"cannot write '{path}': there is no folder '{path.parent}'")
    for network in networks or ():
        check_source(network)
    from onnxplain.bench.suite.measure import Scope
    from onnxplain.bench.suite.suite import NETWORKS, Plan

    baseline = _read(check, "networks" if launches else "records") if check else None
    cores = threads or machine.threads()
    if profile:
        _show_profiles(networks, cores, path)
        return
    if launches:
        found = _show_launches(networks, path)
        if baseline is not None:
            from onnxplain.bench import launches as counted

            _complain(counted.worse(found, baseline), check)
        return
    if quick:
        plan = _quick_plan(networks, rounds, cores, device)
    else:
        scope = Scope(as_integers(targets, "--targets"))
        sizes = sorted(as_integers(batches, "--batches"))
        plan = Plan(networks or NETWORKS, sizes, rounds, scope, True, cores, device)
    results = _measure(plan, path)
    if baseline is not None:
        from onnxplain.bench.suite.ratios import worse

        _complain(worse(results, baseline), check)


def _show_profiles(networks: list[str] | None, threads: int, path: Path | None) -> None:
    from onnxplain.bench.suite.profile import profiled, table
    from onnxplain.bench.suite.suite import NETWORKS

    found = []
    for network in networks or NETWORKS[:1]:
        for profile in profiled(network, threads):
            out.print(table(profile))
            found.append(profile.as_json())
        results = {"machine": machine.machine(), "threads": threads, "profiles": found}
        _write(results, path)


def _show_launches(networks: list[str] | None, path: Path | None) -> dict[str, Any]:
    from onnxplain.bench import launches

    found = []
    for network in networks or launches.NETWORKS:
        method = launches.NETWORKS.get(network, "excitation")
        one = launches.launches(network, method)
        out.print(launches.table(one))
        found.append(asdict(one))
        results = {"machine": machine.machine(), "networks": found}
        _write(results, path)
    return results


def _write(results: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        with replacing(path) as beside:
            beside.write_text(json.dumps(results, indent=1) + "\n")


def _quick_plan(networks: list[str] | None, rounds: int, threads: int, device: str) -> Plan:
    from onnxplain.bench.suite.measure import Scope
    from onnxplain.bench.suite.suite import Plan

    few = networks or ("resnet50", "efficientnet-lite0")
    scope = Scope(compiled=False, peers=False)
    return Plan(few, [1], min(rounds, 10), scope, False, threads, device)


def _measure(plan: Plan, path: Path | None) -> Any:
    from onnxplain.bench.suite.suite import suite

    with progress_bar() as bar:
        task = bar.add_task("bench")

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        results = suite(plan, path, show)
    for record in results["records"]:
        out.print(_table(record))
    return results


def _complain(sentences: list[str], earlier: Path | None) -> None:
    for sentence in sentences:
        err.print(f"[bold red]worse:[/] {sentence}", highlight=False, soft_wrap=True)
    if sentences:
        raise typer.Exit(1)
    say(f"nothing is worse than in {earlier}")


def _table(record: dict[str, Any]) -> Table:
    from onnxplain.bench.suite.record import EAGER, seconds, timed

    trained = "trained" if record["trained"] else "random weights"
    table = Table(
        title=f"{record['network']} ({trained}), batch {record['batch']}, {record['rounds']} rounds"
    )
    for column in ("", "", "median ms", "p95 ms", "÷ eager's explain", "cosine", "MiB"):
        table.add_column(column, justify="left" if not column else "right")
    eager = seconds(record).get(EAGER)
    for row in timed(record):
        table.add_row(
            row["kind"],
            row["name"],
            f"{row['median'] * 1e3:.1f}",
            f"{row['p95'] * 1e3:.1f}",
            f"{row['median'] / eager:.2f}" if eager else "",
            f"{row['cosine']:.6f}" if "cosine" in row else "",
            f"{row['memory_bytes'] / 2**20:.0f}" if "memory_bytes" in row else "",
        )
    for row in record["rows"]:
        if "problem" in row:
            table.add_row(row["kind"], row["name"], shown(row["problem"]))
    return table


def _read(path: Path, what: str) -> Any:
    """Results that an earlier run wrote; `what` is their list."""
    try:
        results = parsed(text(path))
        results[what]
        return results
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"cannot read results from '{path}': {error}") from error
