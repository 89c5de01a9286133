"""Bytes become pixels and values: one spec decides the geometry for every backend.

spec.py (geometry), image_header.py (what an image says of itself), pillow.py (the reference decoder),
normalize.py (levels to floats and back), values.py (labels, text, arrays).
"""
