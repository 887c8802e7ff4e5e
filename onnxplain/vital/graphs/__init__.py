"""Feature visualisation by distribution alignment (VITAL, Görgün et al., arXiv 2503.22399): a step
of the optimisation as one graph, and the graph that the references' distributions come from."""
