"""Makes prototypes.onnx, a classifier with an operator of ONNX Runtime's: see docs/extending.md."""

import numpy as np
import onnx

random = np.random.default_rng(0)
network = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]>
    prototypes (float[N, 3, 8, 8] image) => (float[N, 4] logits) {
        z = Conv <pads = [1, 1, 1, 1]> (image, filters)
        relu = Relu (z)
        mean = GlobalAveragePool (relu)
        features = Flatten (mean)
        distance = com.microsoft.CDist <metric = "sqeuclidean"> (features, prototypes)
        logits = Neg (distance)
    }
""")
weights = {"filters": random.normal(size=(8, 3, 3, 3)), "prototypes": random.normal(size=(4, 8))}
for name, array in weights.items():
    network.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
onnx.save(network, "prototypes.onnx")
