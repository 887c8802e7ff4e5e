"""The command `onnxplain accentuate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import say
from onnxplain.cli.export_options import as_live
from onnxplain.cli.given import Box, Given, Position, Query, Region, read_inputs
from onnxplain.cli.options import (
    Images,
    Model,
    Parameters,
    Provider,
    Temperature,
    as_target,
)
from onnxplain.cli.progress import progress_bar
from onnxplain.contract.explain import TEMPERATURE
from onnxplain.files import writable

if TYPE_CHECKING:
    from onnxplain.runtime.inputs.scalars import Temperatures
    from onnxplain.runtime.signature import Signature

Out = Annotated[Path, typer.Option("--out", "-o", help="The picture to write (.png, .jpg, .webp).")]
Beside = Annotated[
    Path | None,
    typer.Option(
        help="Another explain graph (of `gradient`, say), for rows to compare with. It ascends as "
        "the first does, and takes --temperature and --param where they are inputs of it too."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        help="A class index or name, for all images; -1 the class predicted for the first image, "
        "-2 its runner-up. Give it again for more.",
        show_default="those predicted for the images, and a random one",
    ),
]
_OWN = "as the method's authors do"
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the ascent.", show_default=_OWN)]
Alpha = Annotated[
    float | None, typer.Option(help="Length of a step, in pixels' norm.", show_default=_OWN)
]
Eps = Annotated[
    float | None,
    typer.Option(help="The farthest it may go, in the same norm; 0: no bound.", show_default=_OWN),
]
Clip = Annotated[
    str,
    typer.Option(
        help="When pixels are clipped to valid ones: each step, last, none, or every so many steps."
    ),
]
Norm = Annotated[float, typer.Option(min=1, help="p of the norm.")]
Relative = Annotated[
    bool, typer.Option("--relative", help="A step is alpha times the norm of the pixels.")
]
Raw = Annotated[bool, typer.Option("--raw", help="Do not divide the pullback by its norm.")]
Margin = Annotated[float, typer.Option(min=0, help="How far beyond valid pixels clipping starts.")]
Away = Annotated[bool, typer.Option("--away", help="Descend: away from the class.")]
Animate = Annotated[
    Path | None, typer.Option(help="Also write the ascent step by step (.gif, .png for APNG).")
]


@command
def accentuate(
    model: Model,
    images: Images,
    path: Out = Path("accentuation.png"),
    target: Columns = None,
    beside: Beside = None,
    steps: Steps = None,
    alpha: Alpha = None,
    eps: Eps = None,
    clip: Clip = "each",
    norm: Norm = 2.0,
    relative: Relative = False,
    raw: Raw = False,
    margin: Margin = 0.0,
    away: Away = False,
    temperature: Temperature = None,
    param: Parameters = None,
    animate: Animate = None,
    region: Region = None,
    query: Query = None,
    box: Box = None,
    position: Position = None,
    given: Given = None,
    provider: Provider = "auto",
) -> None:
    """Show what would make the network see more of a class: a grid of images by classes.

    A cell is what the ascent along the pullback of its column's class adds to its row's image.
    Without --target, the columns are the classes predicted for the images (so the diagonal shows
    each image's own class, and the rest counterfactuals) and one random class. Of no classifier,
    the objective is raised, and its numbers are shown.

    \b
        onnxplain accentuate lite0.explain.onnx cat.jpg coffee.jpg rocket.jpg
        onnxplain accentuate lite0.explain.onnx cat.jpg -t tiger -t "golden retriever"
        onnxplain accentuate lite0.explain.onnx *.jpg --beside lite0.gradient.onnx --animate a.gif
    """
    import onnxplain
    from onnxplain.runtime import find_images
    from onnxplain.runtime.climb import Climb
    from onnxplain.runtime.counterfactuals import Grid
    from onnxplain.runtime.inputs.asked import check_asked
    from onnxplain.runtime.inputs.objective import on_photographs
    from onnxplain.runtime.loading import signature_of
    from onnxplain.runtime.pictures.figures import (
        check_animation,
        format_of,
        write_animation,
        write_image,
    )

    format_of(writable(path))
    if animate:
        check_animation(writable(animate))
    found = find_images(images)
    files = [model, *([] if beside is None else [beside])]
    signatures = [signature_of(file) for file in files]
    own = signatures[0].metadata.ascent
    climb = Climb(
        steps or own.steps,
        own.alpha if alpha is None else alpha,
        own.eps if eps is None else eps or None,
        int(clip) if clip.isdecimal() else clip,
        norm,
        relative,
        not raw,
        margin,
        away,
    )
    targets = [as_target(text) for text in target] if target else None
    temperatures = _for_each(as_live(temperature, param), signatures)
    named = {"region": region, "query": query, "box": box, "position": position}
    asked = [read_inputs(one.metadata, named, given) for one in signatures]
    for signature, T, own_inputs in zip(signatures, temperatures, asked, strict=True):
        climb.check(signature.metadata)
        check_asked(signature, targets, T, own_inputs)
    inputs = [  # each file sees another part of a photograph, at another size
        on_photographs(one.metadata, own_inputs, found)
        for one, own_inputs in zip(signatures, asked, strict=True)
    ]
    explainers = [onnxplain.load(file, provider=provider) for file in files]
    grid = Grid.of(explainers[0], found, targets, inputs[0])
    frames = range(1, climb.steps + 1) if animate else [climb.steps]
    ascent = {name: value for name, value in vars(climb).items() if name != "steps"}
    with progress_bar() as progress:
        total = sum(frames) * len(explainers)
        task = progress.add_task("ascending", total=total)
        pictures = []
        for count in frames:
            ascents = [
                grid.ascend(explainer, T, own_inputs, steps=count, **ascent)
                for explainer, T, own_inputs in zip(explainers, temperatures, inputs, strict=True)
            ]
            progress.advance(task, count * len(explainers))
            pictures.append(grid.draw(explainers, ascents, temperatures))
    write_image(pictures[-1], path)
    if animate:
        write_animation(pictures, animate)
    raised = ascents[0].after > ascents[0].before
    more = "more probable" if explainers[0].metadata.objective.is_class else "raised"
    say(f"{path}  {raised.sum()} of {raised.size} targets {more} after {climb.steps} steps")
    for line in grid.told(ascents[0]):
        say(f"  {line}")


def _for_each(wanted: Temperatures, signatures: Sequence[Signature]) -> list[Temperatures]:
    """What the first graph takes, and of that what the one beside it has as inputs too."""
    given = {TEMPERATURE: wanted} if isinstance(wanted, float) else wanted or {}
    taken: list[Temperatures] = [wanted]
    for other in signatures[1:]:
        taken.append({name: value for name, value in given.items() if name in other.live})
    return taken
