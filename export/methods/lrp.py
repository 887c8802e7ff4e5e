"""Layer-wise relevance propagation (Bach et al. 2015): which operator has which rule.

The sweep carries relevances instead of cotangents. The target's logit has relevance 1; of another
objective s, each output y what it contributes to it, y · ∂s/∂y. What is read at several places adds
up. The gradient of a product would be a wrong relevance, so these tables are
complete, not laid over the gradient's: an operator that is in none has no rule.

Each has its rules by the kinds of operators (`onnxplain.export.operators.Kind`).

    z   contributions x·w        s   sign, that of 0 being +1        ⁺ ⁻   positive, negative part

| operators                   | `lrp-zplus`, ε = 1e-5 | `lrp-epsilon`, ε = 1e-6          |
|-----------------------------|-----------------------|----------------------------------|
| Conv, ConvTranspose         | z⁺, without the bias  | x·w / (y + ε s(y))               |
| Gemm, MatMul, Einsum        | z⁺, without the bias  | x·w / (y + ε s(y))               |
| MaxPool                     | as the average pool   | all to the maximum               |
| averages, sums over axes, … | x⁺·w / (Σ x⁺·w + ε)   | x·w / (y + ε s(y))               |
| a + b, both of the image    | |a| / (|a| + |b| + ε) | a / (y + ε s(y))                 |
| x + constant                | R                     | x / (y + ε s(y)): a bias         |
| activations, norms          | R, in both                                               |
| x · constant                | R, in both                                               |
| x · gate(…), x / norm(…)    | R to x, in both                                          |
| attention's weights · V     | to V alone, by the rule of MatMul, in both               |
| other products of the image with itself | half to each, in both                        |

`epsilon-plus` is `lrp-epsilon` with z⁺ for convolutions: b⁺ takes part in it, ε = 1e-6.

Zennit's composites, by its names: `lrp-epsilon` but for

| method                          | convolutions | the first layers             |
|---------------------------------|--------------|------------------------------|
| `lrp-epsilon-plus`              | z⁺, with b⁺  |                              |
| `lrp-epsilon-plus-flat`         | z⁺, with b⁺  | flat                         |
| `lrp-epsilon-gamma-box`         | γ = 0.25     | z^B, where it is convolution |
| `lrp-epsilon-alpha2-beta1`      | α = 2, β = 1 |                              |
| `lrp-epsilon-alpha2-beta1-flat` | α = 2, β = 1 | flat                         |

`epsilon` is that of the ε rule alone there, `stabilizer` that of all others. `epsilon-plus` is
`lrp-epsilon-plus` with one for both.

**Sources.** `lrp-zplus` is the relevance of VITAL (arXiv 2503.22399): z⁺ (Montavon et al. 2017) as
zennit's `ZPlus(1e-5, zero_params="bias")`, maxima as averages, residual sums by absolute values.
That a pool takes only x⁺, as any layer of z⁺ does, differs from x only where a pool sees negative
values (HardSwish, tokens): there Σ x may be near 0 with large x, which would blow R up.
`lrp-epsilon` is zennit's `Epsilon` on every linear layer, `epsilon-plus` its `EpsilonPlus`; both
have its `Norm` for sums and pools, `Pass` for activations and BatchNorm, the gradient for maxima. A
bias spelled out as an Add (a Linear of tokens is MatMul + Add) keeps its share there, as in a Gemm.
Normalisations pass R: their statistics are held constant, the identity rule of AttnLRP (Achtibat et
al. 2024, arXiv 2402.05602). Gates and attention's weights are held constant (Ali et al. 2022, arXiv
2202.07304), nothing goes to queries and keys. Half to each: the uniform rule of AttnLRP.

**Conservation.** Σ R over the image is 1 up to ε, for `lrp-zplus`, unless a z_j is 0 with R_j > 0
(nothing contributed), or constants take part by other ways than addition: tokens concatenated,
padding by other values than 0. In the other two biases keep a share.
"""

from __future__ import annotations

from functools import partial

from onnxplain.export.autodiff import Rule
from onnxplain.export.methods.layer_rules import (
    EPSILON,
    GAMMA,
    STABILIZER,
    Z_PLUS,
    by_stabilizer,
    epsilon,
)
from onnxplain.export.methods.method import Method, register_method
from onnxplain.export.methods.relevance import (
    as_cotangent,
    elementwise_product,
    extremum,
    passes,
    pool_norm,
    pool_plus,
    resize,
    scattered,
    split_by_magnitude,
    split_by_value,
)
from onnxplain.export.methods.weighted import alpha_beta, box, flat, gamma, z_epsilon, z_plus
from onnxplain.export.operators import Kind, Rules

_SHARED: Rules = {
    Kind.MOVE: as_cotangent,
    Kind.SCATTER: scattered,
    Kind.EXTREMUM: extremum,
    **dict.fromkeys([Kind.RECTIFIER, Kind.ACTIVATION, Kind.NORMALISATION], passes),
    Kind.PRODUCT: elementwise_product,
}

LRP_ZPLUS: Rules = {
    **_SHARED,
    **dict.fromkeys([Kind.CONVOLUTION, Kind.MATRIX_PRODUCT], partial(z_plus, bias=False)),
    **dict.fromkeys([Kind.POOL, Kind.MAXIMUM], pool_plus),
    Kind.SUM: split_by_magnitude,
    Kind.INTERPOLATION: partial(resize, interpolated=pool_plus),
}

LRP_EPSILON: Rules = {
    **_SHARED,
    **dict.fromkeys([Kind.CONVOLUTION, Kind.MATRIX_PRODUCT], z_epsilon),
    Kind.POOL: pool_norm,
    Kind.MAXIMUM: as_cotangent,
    Kind.SUM: split_by_value,
    Kind.INTERPOLATION: partial(resize, interpolated=pool_norm),
}

EPSILON_PLUS: Rules = {**LRP_EPSILON, Kind.CONVOLUTION: partial(z_plus, bias=True)}


ZENNITS: Rules = {
    **LRP_EPSILON,
    **{
        kind: by_stabilizer(LRP_EPSILON[kind]) for kind in (Kind.POOL, Kind.SUM, Kind.INTERPOLATION)
    },
}
"""What zennit's composites have in common: `stabilizer` is that of all rules but ε's."""

register_method(
    Method(
        "lrp-zplus",
        parameters=(epsilon(1e-5),),
        relevance=LRP_ZPLUS,
        help="what speaks for the class, none of it negative, conserved",
        source="Montavon et al. 2017, arXiv 1512.02479",
        forwards=3,
        aliases=("lrp-z+", "zplus", "z+"),
    )
)
register_method(
    Method(
        "lrp-epsilon",
        parameters=(epsilon(1e-6),),
        relevance=LRP_EPSILON,
        help="what speaks for the class and against it, pixel by pixel",
        source="Bach et al. 2015, PLOS ONE 10(7)",
        aliases=("lrp", "epsilon-lrp"),
    )
)
register_method(
    Method(
        "epsilon-plus",
        parameters=(epsilon(1e-6),),
        relevance=EPSILON_PLUS,
        help="what speaks for the class, in coherent areas",
        source="Montavon et al. 2019, LNCS 11700",
        forwards=3,
    )
)

# ----- zennit's composites -----

_FLAT: Rules = dict.fromkeys([Kind.CONVOLUTION, Kind.MATRIX_PRODUCT], flat)


def _composite(
    name: str, convolution: Rule, first: Rules, help: str, source: str, forwards: float
) -> Method:
    """ε for dense layers, these rules for convolutions and for the first layers."""
    return Method(
        name,
        parameters=(EPSILON, STABILIZER, *([GAMMA] if convolution is gamma else [])),
        relevance={**ZENNITS, Kind.CONVOLUTION: convolution},
        first=first,
        help=help,
        source=source,
        forwards=forwards,
    )


for _method in (
    _composite(
        "lrp-epsilon-plus", Z_PLUS, {},
        "what speaks for the class, in coherent areas",
        "Montavon et al. 2019, LNCS 11700", 3,
    ),
    _composite(
        "lrp-epsilon-plus-flat", Z_PLUS, _FLAT,
        "what speaks for the class, in coherent areas, whatever the pixels' colours",
        "Lapuschkin et al. 2019, arXiv 1902.10178", 3,
    ),
    _composite(
        "lrp-epsilon-gamma-box", gamma, {Kind.CONVOLUTION: box},
        "what speaks for the class and, less, against it; pixels between black and white",
        "Montavon et al. 2019, LNCS 11700", 5,
    ),
    _composite(
        "lrp-epsilon-alpha2-beta1", alpha_beta, {},
        "what speaks for the class and against it, in coherent areas",
        "Bach et al. 2015, PLOS ONE 10(7)", 5.2,
    ),
    _composite(
        "lrp-epsilon-alpha2-beta1-flat", alpha_beta, _FLAT,
        "what speaks for the class and against it, whatever the pixels' colours",
        "Lapuschkin et al. 2019, arXiv 1902.10178", 5,
    ),
):  # fmt: skip
    register_method(_method)
