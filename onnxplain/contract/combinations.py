"""Which options of an export go together, whatever the network and the method."""

from __future__ import annotations

from onnxplain.contract.picture import PictureOptions
from onnxplain.contract.pixels import NETWORK, RGB, Pixels
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import InputError, SourceError


def combined(options: ExportOptions) -> tuple[Pixels, PictureOptions | None]:
    """What the file says of its `image` and of what becomes of the pullback, and the picture that
    it draws.

    Raises:
        SourceError: options that do not go together, or a value that is none.
    """
    _check_ascent(options)
    return _pixels(options), _picture(options)


def _check_ascent(options: ExportOptions) -> None:
    """
    Raises:
        SourceError: options that do not go together with those of an ascent.
    """
    for wrong, message in (
        (
            options.step and options.unroll is not None,
            "step is one step, unroll all of them: choose one",
        ),
        (
            options.ascends and options.multi_target,
            "an ascent follows one target per image; leave out multi_target=True",
        ),
        (
            options.unroll is not None and options.unroll < 1,
            f"unroll at least one step, not {options.unroll}",
        ),
        (
            options.attentions and options.unroll is not None,
            "attentions are of one image, unroll explains several after one another: choose one",
        ),
    ):
        if wrong:
            raise SourceError(message)


def _picture(options: ExportOptions) -> PictureOptions | None:
    """The picture that the graph is to draw.

    Raises:
        SourceError: it draws no such thing, or has nothing to draw; or topk is no number.
    """
    if options.topk is not None and options.topk < 1:
        raise SourceError(f"topk is how many classes are put out, at least 1, not {options.topk}")
    if options.unroll is not None and (options.picture or options.topk):
        raise SourceError(
            "picture and topk are of an explanation, and a file with unroll has none: choose one"
        )
    if options.picture is None:
        return None
    try:
        if isinstance(options.picture, str):
            return PictureOptions.of_graph(options.picture)
        options.picture.check_of_graph()
    except InputError as error:
        raise SourceError(str(error)) from error
    return options.picture


def _pixels(options: ExportOptions) -> Pixels:
    """What the file says of its `image`, and of what becomes of the pullback.

    Raises:
        SourceError: a choice that there is not, or options that do not go together.
    """
    options.check_choices()
    quantised = options.quantise_output or ""
    for wrong, message in (
        (
            options.preprocess and options.ascends,
            "an ascent goes on from a picture that it has changed, which is no photograph's "
            "pixels: leave out preprocess=True",
        ),
        (
            quantised and options.unroll is not None,
            "an ascent in one call puts out no pullback: leave out quantise_output=",
        ),
        (
            options.any_size and {options.fit, options.resize, options.fill} != {None},
            "with size='any' photographs keep their own sizes: leave out fit=, resize= and fill=",
        ),
        (
            not options.preprocess and (options.pixels != RGB or options.geometry != NETWORK),
            "pixels= and geometry= are of a file that takes photographs: add preprocess=True",
        ),
    ):
        if wrong:
            raise SourceError(message)
    if not options.preprocess:
        return Pixels(quantised=quantised)
    return Pixels(options.pixels, options.geometry, quantised)
