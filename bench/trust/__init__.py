"""Methods by metrics, measured: `python -m onnxplain.bench.trust digits`, and `photographs`.

`candidates` declares what is compared; `digits` makes pictures of which is known where the class
is, and a network for them; `table` is what a page shows.
"""
