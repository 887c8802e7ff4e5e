"""The command line: one file per command, what they share in `app`.

Exit status: see `onnxplain.errors`. Everything heavy is imported by the command that needs it.
"""

# Each command registers itself; --help lists them in this order.
# isort: off
from onnxplain.cli import export as export
from onnxplain.cli import differentiate as differentiate
from onnxplain.cli import explain as explain
from onnxplain.cli import accentuate as accentuate
from onnxplain.cli import report as report
from onnxplain.cli import gallery as gallery
from onnxplain.cli import web as web
from onnxplain.cli import serve as serve
from onnxplain.cli import package as package
from onnxplain.cli import batch as batch
from onnxplain.cli import stream as stream
from onnxplain.cli import choose as choose
from onnxplain.cli import tune as tune
from onnxplain.cli import evaluate as evaluate
from onnxplain.cli import verify as verify
from onnxplain.cli import build as build
from onnxplain.cli import run_engine as run_engine
from onnxplain.cli import doctor as doctor
from onnxplain.cli import info as info
from onnxplain.cli import methods as methods
from onnxplain.cli import signal as signal
from onnxplain.cli import top_images as top_images
from onnxplain.cli import visualize as visualize
from onnxplain.cli import bench as bench
from onnxplain.cli import demo as demo

# isort: on
from onnxplain.cli.app import app


def main() -> None:
    app()
