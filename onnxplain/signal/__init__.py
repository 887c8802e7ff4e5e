"""What a network lets in: autoencoders tuned on a frozen classifier.

Palacio, Folz, Hees, Raue, Borth, Dengel: What do Deep Networks Like to See? (arXiv 1803.08337).
"""
