"""Which networks can be explained, and how exactly? `python -m onnxplain.bench.zoo --help`"""
