"""What a graph draws itself: the picture of its explanation, and the ranking of the classes."""

from onnxplain.export.drawn.picture import add_picture, is_drawn
from onnxplain.export.drawn.ranking import add_ranking

__all__ = ["add_picture", "add_ranking", "is_drawn"]
