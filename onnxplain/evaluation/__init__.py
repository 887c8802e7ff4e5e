"""Which explanation to trust: what is measured of explain graphs on images."""
