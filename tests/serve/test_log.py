"""What the service says of requests."""

from __future__ import annotations

import json
import logging

from onnxplain.serve.log import JsonFormatter


def test_a_clients_path_moves_no_cursor() -> None:
    record = logging.makeLogRecord(
        {"msg": "request", "onnxplain_fields": {"path": "/\x9b31mEVIL\u202e\n"}}
    )
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["path"] == "/\x9b31mEVIL\u202e\n"
