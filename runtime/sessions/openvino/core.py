"""The one `openvino.Core` of the process, which is never let go.

Each Core's CPU plugin (OpenVINO 2026.4) gives the thread that loads it an alternate stack for
signals, unmaps it when the plugin goes, and then puts back the one that it found. Of two that go in
the order in which they came, the second puts back the first's, which is no more: the next Ctrl-C,
or the end of a child process that Python is told of, is a segmentation fault. A program's own Cores
can still do so.
"""

from __future__ import annotations

import threading
from typing import Any

_core: Any = None
_making = threading.Lock()


def core() -> Any:
    """The `openvino.Core`; its methods may be called by several threads at once."""
    global _core
    with _making:
        if _core is None:
            from openvino import Core

            _core = Core()
        return _core
