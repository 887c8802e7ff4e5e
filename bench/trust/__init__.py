"""All methods by all metrics, measured: `python -m onnxplain.bench.trust digits|photographs`.

On digits whose place is known, with a network trained here; and on EfficientNet-Lite0 with its
trained weights and photographs that packages bring, each also mirrored.
"""
