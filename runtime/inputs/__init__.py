"""From what a caller gives (images, class names, tensors) to what a graph takes."""
