"""Explain graphs in the places of networks and methods in other packages, each in a module of its
own that imports the package: `captum`, `pytorch_grad_cam`, `quantus`; and `network`, which is a
`torch.nn.Module`.
"""
