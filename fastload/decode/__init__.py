"""Bytes become pixels and values: one spec decides the geometry for every backend.

spec.py (geometry), image_header.py (format, size, orientation), image_decoder.py (the interface of decoders),
images.py (native decoding), pillow.py (the reference decoder), dali/, values.py (labels, text, arrays).
"""
