"""The reference is Pillow 13. Older ones, all that Python 3.10 has, read some damaged files otherwise."""

import PIL
import pytest

needs_pillow_13 = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="needs Pillow 13")
