"""The points in which our methods and their authors' code differ, or did, each with its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnxplain.bench.fidelity import pullbacks, visualisations
from onnxplain.bench.fidelity.figures import Figures
from onnxplain.files import scratch


@dataclass(frozen=True)
class Row:
    """A point of difference.

    Attributes:
        number: for tests to find it.
        what: the definition in question.
        theirs, ours: what each does; `ours` by default.
        option: how to have theirs; empty where it is the default, or cannot be had.
        measure: its figures, with a folder to work in.
    """

    number: str
    what: str
    theirs: str
    ours: str
    option: str
    measure: Callable[[Path], Figures]


ROWS = (
    Row(
        "A1", "excitation: DenseNet's last ReLU, a function", "not softened: modules are replaced",
        "softened, by the rule as stated",
        "`export --except NODE` (`info --patterns`); `node_relu_120`", pullbacks.functional_relu,
    ),
    Row(
        "B1", "semantic: attention of a plain ViT", "a gradient through queries and keys",
        "weights held constant, as in their PVT, the one they evaluate; no option has theirs", "",
        pullbacks.attention,
    ),
    Row(
        "B2", "semantic: temperatures of their newer scripts", "each rule its own",
        "the paper's, and one factor for all but attention's",
        "`export --param relu=0.5 --param max_pool=0.5`, `--param attention=0.5`; as inputs: "
        "`--live relu --live max_pool`, `--live attention`",
        pullbacks.temperatures,
    ),
    Row(
        "B3", "the ascent's steps, α and ε", "v1: 5, 20 and 100; v6: 10, 20 and none",
        "the method's own: excitation v1's, semantic v6's",
        "v1's for semantic: `accentuate --steps 5 --eps 100`", pullbacks.ascent,
    ),
    Row(
        "C1", "VITAL: relevance through a max-pool of 3 × 3", "as an average of 2 × 2, stride 2",
        "as the average of its own window", "`--pool-rule vital`, but for guided",
        visualisations.pool,
    ),
    Row(
        "C2", "VITAL: guided relevance", "a last ReLU on the layer's gradient", "theirs", "",
        visualisations.guided,
    ),
    Row(
        "C3", "VITAL: importance of channels", "from 0 to 1 for each reference, then their mean",
        "theirs", "", visualisations.importance,
    ),
    Row(
        "C4", "VITAL: restricted relevance", "starts from 1, and 1e-6 is added to what divides",
        "theirs", "", visualisations.restricted,
    ),
    Row(
        "C5", "VITAL: z⁺ where a BatchNorm's γ is negative",
        "the convolution's own weights clamped",
        "the weights with γ in them clamped: what the layer computes", "`--batch-norm apart`",
        visualisations.negative_gamma,
    ),
    Row(
        "C6", "VITAL: what ranks the photographs of a channel",
        "the mean in the best patch of 64 × 64, each patch being the network's whole input",
        "the greatest activation anywhere",
        "`--ranking patches`; `mean` too, also of `top-images --by`",
        visualisations.patches,
    ),
    Row(
        "C7", "VITAL: layers matched in ViT-B, ViT-L, ConvNeXt",
        "0, 4, 8, 11; 2, 9, 20, 23; 2.1, 4.1, 6.1, 7.2", "theirs", "`--layers`",
        visualisations.layers_matched,
    ),
    Row(
        "C8", "VITAL: the transparent picture",
        "opaque from the 98th percentile, colours stretched", "theirs",
        "our former one: `--transparency smooth`", visualisations.transparent,
    ),
    Row(
        "C9", "VITAL: relevance where a block and its shortcut meet",
        "by magnitude (flows_skip); flows_skip_simple, latest and simple are in the code",
        "by magnitude: `ratio`",
        "`--skip-rule half` (flows_skip_simple), `branch-ratio` (latest), `branch-half` (simple)",
        visualisations.shortcuts,
    ),
    Row(
        "C10", "VITAL: relevance, the greatest of each layer alone (`rel_pass_ratio`)",
        "all of it; a share in the code", "all of it", "`--relevance-share 0.2`",
        visualisations.filtered,
    ),
    Row(
        "C11", "VITAL: a first phase at half resolution (setting 0)",
        "the picture and the references averaged over 2 × 2 pixels, 2,000 steps",
        "at full size from the start", "`--start-pooled --start-steps 2000 --steps 1000`",
        visualisations.halved,
    ),
    Row(
        "C12", "VITAL: several pictures of a class (`bs`)",
        "the mean of their activations is matched", "each picture by itself",
        "`--together 4`, of a class",
        visualisations.means,
    ),
    Row(
        "D1", "SegNet: the order of channels", "their published script feeds and reads RGB",
        "theirs", "`signal --channels bgr` for another training",
        pullbacks.channel_order,
    ),
    Row(
        "D2", "SegNet: a file whose names are bytes, of Python 2", "read",
        "read; no pickled object is", "", pullbacks.names_of_bytes,
    ),
)  # fmt: skip


def measure() -> dict[str, Figures]:
    """Every row's figures, by its number."""
    found = {}
    for row in ROWS:
        with scratch() as folder:
            found[row.number] = row.measure(folder)
    return found
