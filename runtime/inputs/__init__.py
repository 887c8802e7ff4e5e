"""From what a caller gives (files, pictures, class names, tensors) to what a graph takes."""
