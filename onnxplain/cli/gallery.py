"""The command `onnxplain gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import complain, say
from onnxplain.cli.options import Images, Provider
from onnxplain.cli.progress import progress_bar

Networks = Annotated[
    list[str],
    typer.Option(
        "--network",
        "-n",
        help="A network's name, an explain graph or engine, or another file as for `onnxplain "
        "export`. Give "
        "it again for more.",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "-m",
        help="What explains them, but for explain graphs, which have their own. Give it again for "
        "more.",
        show_default="excitation, gradcam, lrp-epsilon-plus and gradient",
    ),
]


@command
def gallery(
    images: Images,
    network: Networks,
    method: Methods = None,
    path: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "gallery.html"
    ),
    provider: Provider = "auto",
) -> None:
    """Show photographs by several networks and methods, side by side on one page to pass on.

    What a network predicts is what all methods explain. A method that is not for a network stands
    there with the reason. The page is one file, opens from disk, and can be searched and sorted.

    \b
        onnxplain gallery photos/ -n efficientnet-lite0
        onnxplain gallery photos/ -n resnet50 -n densenet121 -m excitation -m grad-cam
        onnxplain gallery photos/ -n mine.explain.onnx -n theirs.explain.onnx -o both.html
    """
    from onnxplain.gallery import METHODS, write_gallery
    from onnxplain.runtime import find_images

    found = find_images(images)
    with progress_bar() as bar:
        task = bar.add_task("beginning", total=None)
        failures = write_gallery(
            [Path(one) for one in network],
            found,
            path,
            methods=method or METHODS,
            provider=provider,
            progress=lambda done, total, what: bar.update(
                task, completed=done, total=total, description=what
            ),
        )
    for file, reason in failures:
        complain(f"{file}: {reason}")
    say(f"{path}  {len(found) - len(failures)} of {len(found)} images")
    if failures:
        raise typer.Exit(1)
