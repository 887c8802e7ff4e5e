"""An explain graph as an HTTP service, and as a model of the servers that operators run."""
