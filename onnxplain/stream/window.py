"""Explained frames in a window."""

from __future__ import annotations

from PIL import Image

from onnxplain.errors import BackendError
from onnxplain.stream.source import Frame

_ELSEWHERE = "write a file with --out, or show it in a browser with --http PORT"


class Window:
    """A window that shows the newest frame; use it on the main thread.

    Raises:
        BackendError: there is no display, or no Tk.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:  # many systems' Python comes without it
            raise BackendError(
                f"a window needs Tk ({error}): install it (Debian and Ubuntu: apt install "
                f"python3-tk; Fedora: dnf install python3-tkinter); or {_ELSEWHERE}"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise BackendError(f"no window can be opened ({error}); {_ELSEWHERE}") from error
        self._photo_image = ImageTk.PhotoImage
        self._root.title(title)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._open = True
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        self._root.bind("<Escape>", lambda event: self._close())

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *error: object) -> None:
        self._root.destroy()

    def show(self, image: Image.Image, frame: Frame) -> bool:
        """Show a frame; False once the window has been closed."""
        self._picture = self._photo_image(image)  # Tk keeps no reference of its own
        self._label.configure(image=self._picture)
        self._root.update()
        return self._open

    def _close(self) -> None:
        self._open = False
