"""What the files carry that `export` and the applications write and `runtime` reads.

One module for each kind of graph: an explanation (`explain`), a step of a feature visualisation
(`steps`), the channels of layers (`channels`), a network's signal (`signals`); and what any of them
may say about its operators (`precision`). Imports the errors, and what options are checked with.
"""
