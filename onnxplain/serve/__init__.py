"""An explain graph as an HTTP service, and packaged for the servers that operators run."""
