"""From a camera's pixels to a network's input, and from its pullback back to the photograph."""

from onnxplain.export.camera.camera import Camera
from onnxplain.export.camera.front import is_camera, see
from onnxplain.export.camera.output import put_out

__all__ = ["Camera", "is_camera", "put_out", "see"]
