"""Any network's graph in one spelling, so that the tables of rules stay short."""
