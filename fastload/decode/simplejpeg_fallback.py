"""JPEGs through the simplejpeg package, for machines on which no libjpeg can be loaded.

In, out and promised: as `pillow.decode_image`, which it replaces. The package contains a libjpeg-turbo and
decodes with the GIL released, but it is called once an image, on Python's threads.

It applies damage.py's rule as far as the package reports libjpeg's warnings, which is the last one: a file is
whole if that is about skipped bytes. Lossless gray, which Pillow could decode, is refused.
"""

import numpy as np
from PIL import Image

from fastload import _native
from fastload.decode import pillow
from fastload.decode.image_header import image_header
from fastload.decode.spec import ImageSpec, denominator, geometry, scaled_box, stretched
from fastload.errors import SampleError
from fastload.shortage import no_memory

_CMYK_CHANNELS = 4
_SCAN = b"\xff\xda"  # the marker at its start


def decode_image(
    content,
    spec: ImageSpec,
    seed: int,
    position: int,
    *,
    max_pixels: int,
    guide: tuple[int, int] | None = None,
) -> pillow.DecodedImage:
    """Decodes, resizes, crops and flips one JPEG; CMYK goes to Pillow, as in every backend.

    Raises SampleError.
    """
    header = image_header(content)
    if header.channels == _CMYK_CHANNELS or not header.complete:
        return pillow.decode_image(content, spec, seed, position, max_pixels=max_pixels, guide=guide)
    if header.width * header.height > max_pixels:
        raise SampleError(f"{header.width} x {header.height} pixels are more than max_pixels={max_pixels}")
    if header.progressive and bytes(content).count(_SCAN) > _native.MAX_JPEG_SCANS:
        raise SampleError(f"cannot decode the JPEG image: more than {_native.MAX_JPEG_SCANS} scans")
    own = header.upright
    size = guide or own
    chosen = geometry(spec, *size, seed, position)
    view = stretched(chosen, size, own)
    d = denominator(spec.scaled, view)
    scaled_size, box = scaled_box(view, *own, d, header.orientation)
    rgb = pillow.turned(Image.fromarray(_decode(content, header.width, header.height, d)), header.orientation)
    if rgb.size != scaled_size:
        raise SampleError(
            f"decoded to {rgb.size[0]} x {rgb.size[1]} pixels instead of {scaled_size[0]} x {scaled_size[1]}"
        )
    return pillow.DecodedImage(pillow.render(rgb, chosen, spec.filter, box), chosen, size)


def _decode(content, width: int, height: int, d: int) -> np.ndarray:
    """[ceil(height / d), ceil(width / d), 3] uint8, as stored."""
    import simplejpeg

    options = {"colorspace": "RGB", "fastdct": False, "fastupsample": False}
    if d > 1:
        options |= {"min_width": -(-width // d), "min_height": -(-height // d), "min_factor": 1}
    try:
        return simplejpeg.decode_jpeg(content, **options)
    except ValueError as error:
        if _native.jpeg_tells_of_memory(str(error)):
            raise no_memory(f"to decode a JPEG image of {width} x {height} pixels", error) from error
        if "extraneous bytes" not in str(error):
            raise SampleError(f"cannot decode the JPEG image: {error}") from error
    return simplejpeg.decode_jpeg(content, **options, strict=False)
