"""An explain graph as a static web page that explains photographs in the browser."""

from onnxplain.web.site import STAGES, write_site

__all__ = ["STAGES", "write_site"]
