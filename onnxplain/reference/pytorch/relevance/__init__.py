"""Relevance in place of gradients (Bach et al. 2015), written apart from the exporter.

While `RelevanceFlow` is entered, networks run as ever, but what autograd carries back is relevance.
What moves elements moves it. Activations, normalisations and constant factors pass it on. Gates and
attention's weights are held constant; of other values that multiply each other each takes half. A
BatchNorm that follows a convolution or a linear layer at once is part of it. How everything else
shares is what the methods differ in:

    lrp-zplus      ε = 1e-5    products by z⁺ (Montavon et al. 2017), without their biases; pools in
                               proportion to what is positive, maxima as averages; sums by absolute
                               values: the relevance of VITAL (Görgün et al., arXiv 2503.22399)
    lrp-epsilon    ε = 1e-6    by contribution, biases keep theirs; maxima to the greatest
    epsilon-plus   ε = 1e-6    the same, but convolutions by z⁺ with their positive biases

and zennit's composites, by its names (`COMPOSITES`).
"""

from onnxplain.reference.pytorch.relevance.flow import RelevanceFlow
from onnxplain.reference.pytorch.relevance.sharing import COMPOSITES, SHARINGS

__all__ = ["COMPOSITES", "SHARINGS", "RelevanceFlow"]
