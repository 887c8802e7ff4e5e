"""Products of methods, element by element: where one is 0 or near it, so is the product.

Each factor sweeps by its own rules from the same target, over one forward pass. Any can be asked
for by the factors' names, `guided*gradcam`; what the literature has a name for is declared here.
"""

from __future__ import annotations

from onnxplain.contract.explain import MAP
from onnxplain.contract.names import TIMES, check_factors
from onnxplain.export.methods.method import METHODS, Method, register_method


def get_method(name: str) -> Method:
    """The method of that name, or the product of those that it names.

    Raises:
        SourceError: there is none, or factors have parameters of one name.
    """
    if TIMES not in name or METHODS.find(name) is not None:
        return METHODS.named(name)
    factors = [METHODS.named(part.strip()) for part in name.split(TIMES)]
    return product(TIMES.join(factor.name for factor in factors), *factors)


def product(name: str, *factors: Method, help: str = "", source: str = "") -> Method:
    """The method that multiplies what others give; ascents are the first one's that has any.

    Raises:
        SourceError: two have parameters of one name, of which either may be meant.
    """
    parts = tuple(part for factor in factors for part in factor.parts)
    parameters = [parameter for part in parts for parameter in part.parameters]
    check_factors(name, (parameter.name for parameter in parameters))
    down = [part for part in parts if part.kind != MAP]
    return Method(
        name,
        parameters=tuple(parameters),
        factors=parts,
        ascent=(down or parts)[0].ascent,
        help=help,
        needs=", ".join(dict.fromkeys(part.needs for part in parts if part.needs)),
        source=source,
        forwards=1 + sum(part.forwards - 1 for part in parts),
    )


register_method(
    product(
        "guided-gradcam",
        METHODS["guided"],
        METHODS["gradcam"],
        help="fine structure, where the class is",
        source="Selvaraju et al. 2017, arXiv 1610.02391",
    )
)
