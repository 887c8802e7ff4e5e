"""Structured logs: one JSON object per line, on standard error; never images or their results."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_OWN = "onnxplain_fields"

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR

logger = logging.getLogger("onnxplain.serve")


def event(name: str, *, level: int = INFO, **fields: Any) -> None:
    """Log an event with its fields."""
    logger.log(level, name, extra={_OWN: fields})


class JsonFormatter(logging.Formatter):
    """A line: `time` (UTC, ISO 8601), `level`, `event`, and the event's own fields; of ASCII, as
    what clients send may move a terminal's cursor."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        entry |= getattr(record, _OWN, {"logger": record.name})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def log_to_stderr(level: str) -> None:
    """Log to standard error: this service's and the server's events, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)
    for name in (logger.name, "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger("python_multipart").setLevel(
        logging.ERROR
    )  # it warns about what clients send
