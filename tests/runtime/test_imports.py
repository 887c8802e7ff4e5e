"""`onnxplain.runtime` runs with numpy, onnxruntime and Pillow alone."""

from __future__ import annotations

import subprocess
import sys

from PIL import Image

SCRIPT = """
import sys

ALLOWED = {"numpy", "onnxruntime", "PIL", "onnxplain"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ALLOWED or top in sys.stdlib_module_names or top.startswith("__editable__"):
            return None
        raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
loaded_at_startup = set(sys.modules)

from onnxplain.runtime import accentuate, find_images, load

graph, folder, picture = sys.argv[1:]
explainer = load(graph)
explanation = explainer(find_images(folder))
for style in ("pullback", "heatmap", "overlay", "grid"):
    explanation.save(picture, style)
accentuate(explainer, find_images(folder), steps=1)

tops = {name.partition(".")[0] for name in set(sys.modules) - loaded_at_startup}
print(sorted(top for top in tops if top not in sys.stdlib_module_names))
"""


def test_an_explanation_imports_numpy_onnxruntime_and_pillow_alone(graph_file, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 20), "orange").save(tmp_path / "photos" / "a.jpg")
    arguments = [str(graph_file()), str(tmp_path / "photos"), str(tmp_path / "why.png")]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "['PIL', 'numpy', 'onnxplain', 'onnxruntime']"
