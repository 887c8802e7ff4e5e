"""Explain a data lake: any number of images, each exactly once, through Ray Data."""

from onnxplain.batch.listing import Columns
from onnxplain.batch.run import Options, Pool, Summary, explain_lake

__all__ = ["Columns", "Options", "Pool", "Summary", "explain_lake"]
