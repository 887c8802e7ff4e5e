"""What a network lets in: autoencoders fine-tuned on a frozen classifier (Palacio et al., CVPR 2018).

A folder `signal` at the top of the repository would hide Python's own module of that name.
"""
