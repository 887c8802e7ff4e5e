"""What explain graphs are measured against: PyTorch's answer, float64's, the forward pass alone."""
