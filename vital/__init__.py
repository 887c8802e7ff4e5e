"""Feature visualisation (VITAL): what does a neuron look for? `onnxplain.visualize`."""
