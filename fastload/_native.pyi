# Written by pybind11-stubgen from the built module (python -m pybind11_stubgen fastload._native -o FOLDER);
# by hand: "| None" where a default is None.
"""
The native halves of fastload; each is documented at its Python twin.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing
import typing_extensions
__all__: list[str] = ['AugmentThreads', 'Augmenter', 'Blob', 'Buffer', 'BufferPool', 'ByteBatch', 'CHANGED_FILE', 'Dtype', 'FileTable', 'ImageAugmenter', 'ImageDecoder', 'ImageFieldRequest', 'ImageSpec', 'ImageStatus', 'IndexDamage', 'IndexLookup', 'MAX_JPEG_SCANS', 'MappedFile', 'PendingImages', 'PixelWriter', 'SHORT_FILE', 'ShardReader', 'ada', 'ada_layout', 'augment', 'augment_kernels', 'augment_layout', 'begin_end', 'check_room_for_thread', 'check_threads', 'crc32', 'fork_count', 'geometries', 'give_up_open_files', 'index_tar', 'index_zip', 'is_transient', 'jpeg_damage', 'jpeg_tells_of_memory', 'load_jpeg_library', 'mixture_advance', 'mixture_take', 'open_files', 'parse_image_header', 'permute', 'philox_bits', 'pixel_kernels', 'prepare_thread', 'scaled_box', 'sleep_at_the_end', 'sleep_for_ever', 'use_augment_kernels', 'use_pixel_kernels', 'write_image']
class IndexDamage(Exception):
    pass
class MappedFile:
    def __init__(self, arg0: str) -> None:
        ...
class IndexLookup:
    def __init__(self) -> None:
        ...
    def add(self, arg0: MappedFile, arg1: dict) -> None:
        ...
    def find(self, arg0: collections.abc.Sequence[str]) -> tuple[numpy.typing.NDArray[numpy.int64], list]:
        ...
    def keys(self, arg0: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]) -> list:
        ...
    def labels(self, arg0: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]) -> numpy.typing.NDArray[numpy.int64]:
        ...
    def locate(self, arg0: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], arg1: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> tuple:
        ...
    def replace(self, arg0: typing.SupportsInt | typing.SupportsIndex, arg1: MappedFile, arg2: dict) -> None:
        ...
    def row_starts(self) -> numpy.typing.NDArray[numpy.int64]:
        ...
    def tally(self, arg0: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]) -> tuple[dict[int, int], int]:
        ...
    @property
    def rows(self) -> int:
        ...
class ImageSpec:
    """
    The C++ half of decode/spec.py's ImageSpec.
    """
    def __init__(self, *, width: typing.SupportsInt | typing.SupportsIndex, height: typing.SupportsInt | typing.SupportsIndex, resize: typing.SupportsInt | typing.SupportsIndex, short_side: typing.SupportsInt | typing.SupportsIndex, crop: typing.SupportsInt | typing.SupportsIndex, crop_left: typing.SupportsInt | typing.SupportsIndex, crop_top: typing.SupportsInt | typing.SupportsIndex, filter: typing.SupportsInt | typing.SupportsIndex, scaled: typing.SupportsInt | typing.SupportsIndex, scale_low: typing.SupportsFloat | typing.SupportsIndex, scale_high: typing.SupportsFloat | typing.SupportsIndex, ratio_low: typing.SupportsFloat | typing.SupportsIndex, ratio_high: typing.SupportsFloat | typing.SupportsIndex, xflip: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
class Dtype:
    """
    Members:
    
      uint8
    
      float32
    
      float16
    
      bfloat16
    """
    __members__: typing.ClassVar[dict[str, Dtype]]
    bfloat16: typing.ClassVar[Dtype]
    float16: typing.ClassVar[Dtype]
    float32: typing.ClassVar[Dtype]
    uint8: typing.ClassVar[Dtype]
    @typing.overload
    def __eq__(self, other: Dtype) -> bool:
        ...
    @typing.overload
    def __eq__(self, other: typing.Any) -> bool:
        ...
    def __getstate__(self) -> int:
        ...
    def __hash__(self) -> int:
        ...
    def __index__(self) -> int:
        ...
    def __init__(self, value: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def __int__(self) -> int:
        ...
    @typing.overload
    def __ne__(self, other: Dtype) -> bool:
        ...
    @typing.overload
    def __ne__(self, other: typing.Any) -> bool:
        ...
    def __repr__(self) -> str:
        ...
    def __setstate__(self, state: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def __str__(self) -> str:
        ...
    @property
    def name(self) -> str:
        ...
    @property
    def value(self) -> int:
        ...
class PixelWriter:
    """
    How pixels are written: dtype, layout, size, normalization.
    """
    def __init__(self, dtype: Dtype, channels_last: bool, height: typing.SupportsInt | typing.SupportsIndex, width: typing.SupportsInt | typing.SupportsIndex, divisor: typing.SupportsFloat | typing.SupportsIndex, mean: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"], std: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"]) -> None:
        ...
    @property
    def sample_bytes(self) -> int:
        ...
class Buffer:
    """
    Memory of a BufferPool, writable bytes.
    """
    @property
    def address(self) -> int:
        ...
    @property
    def capacity(self) -> int:
        ...
class BufferPool:
    def __init__(self, max_bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def acquire(self, size: typing.SupportsInt | typing.SupportsIndex) -> typing_extensions.Buffer:
        ...
    def trim(self) -> None:
        ...
    @property
    def allocated(self) -> int:
        ...
    @property
    def idle_bytes(self) -> int:
        ...
    @property
    def reused(self) -> int:
        ...
    @property
    def used_bytes(self) -> int:
        ...
class FileTable:
    def __init__(self, paths: collections.abc.Sequence[str], stamps: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]] = ()) -> None:
        """
        stamps: (size in bytes, time of the last change in ns, start, stop and CRC of the tail) of each file.
        """
    def close(self, seconds: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        """
        Closes its files; False where that takes longer. What is read later is opened anew.
        """
class Blob:
    pass
class ByteBatch:
    def attempts(self, blob: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        How many reads of it were tried.
        """
    def blob(self, blob: typing.SupportsInt | typing.SupportsIndex) -> Blob:
        ...
    def bytes(self, blob: typing.SupportsInt | typing.SupportsIndex) -> bytes:
        ...
    def cancel(self) -> None:
        ...
    def error(self, blob: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        0, an errno, SHORT_FILE or CHANGED_FILE.
        """
    def integers(self, first: typing.SupportsInt | typing.SupportsIndex, count: typing.SupportsInt | typing.SupportsIndex) -> typing.Any:
        """
        int64 [count], or None where a blob is not a plain decimal integer.
        """
    def missing(self, blob: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    def wait(self, timeout_seconds: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        ...
    @property
    def busy_seconds(self) -> float:
        ...
    @property
    def bytes_read(self) -> int:
        ...
    @property
    def first_error(self) -> typing.Any:
        ...
    @property
    def retries(self) -> int:
        """
        Reads that were retried.
        """
class ShardReader:
    """
    The reader threads.
    """
    def __init__(self, threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def leave_behind(self, batch: ByteBatch) -> None:
        """
        Abandons a batch whose reads hang: its threads end with the reads, and new threads replace them.
        """
    def set_delay_seconds(self, seconds: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        Sleeps before each read: a slow disk, for tests.
        """
    def submit(self, files: FileTable, file_ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int32], offsets_bytes: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], sizes_bytes: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], paths: collections.abc.Mapping[typing.SupportsInt | typing.SupportsIndex, str], memory: BufferPool, *, urgent: bool = False, retry: bool = True) -> ByteBatch:
        """
        urgent: read before everything in the queue. retry: whether transient errors are retried.
        """
    @property
    def backoff_seconds(self) -> list[float]:
        """
        Pauses before each retry of a read; tests make them short.
        """
    @backoff_seconds.setter
    def backoff_seconds(self, arg1: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> None:
        ...
    @property
    def threads(self) -> int:
        ...
class ImageStatus:
    """
    Members:
    
      OK
    
      UNSUPPORTED
    
      DAMAGED
    
      MISSING
    
      UNREAD
    
      TOO_LARGE
    
      BAD_GEOMETRY
    
      OUT_OF_MEMORY
    
      FAILED
    """
    BAD_GEOMETRY: typing.ClassVar[ImageStatus]
    DAMAGED: typing.ClassVar[ImageStatus]
    FAILED: typing.ClassVar[ImageStatus]
    MISSING: typing.ClassVar[ImageStatus]
    OK: typing.ClassVar[ImageStatus]
    OUT_OF_MEMORY: typing.ClassVar[ImageStatus]
    TOO_LARGE: typing.ClassVar[ImageStatus]
    UNREAD: typing.ClassVar[ImageStatus]
    UNSUPPORTED: typing.ClassVar[ImageStatus]
    __members__: typing.ClassVar[dict[str, ImageStatus]]
    @typing.overload
    def __and__(self, other: ImageStatus) -> int:
        ...
    @typing.overload
    def __and__(self, other: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    @typing.overload
    def __eq__(self, other: ImageStatus) -> bool:
        ...
    @typing.overload
    def __eq__(self, other: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    @typing.overload
    def __eq__(self, other: typing.Any) -> bool:
        ...
    @typing.overload
    def __ge__(self, other: ImageStatus) -> bool:
        ...
    @typing.overload
    def __ge__(self, other: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    def __getstate__(self) -> int:
        ...
    @typing.overload
    def __gt__(self, other: ImageStatus) -> bool:
        ...
    @typing.overload
    def __gt__(self, other: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    def __hash__(self) -> int:
        ...
    def __index__(self) -> int:
        ...
    def __init__(self, value: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def __int__(self) -> int:
        ...
    def __invert__(self) -> typing.Any:
        ...
    @typing.overload
    def __le__(self, other: ImageStatus) -> bool:
        ...
    @typing.overload
    def __le__(self, other: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    @typing.overload
    def __lt__(self, other: ImageStatus) -> bool:
        ...
    @typing.overload
    def __lt__(self, other: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    @typing.overload
    def __ne__(self, other: ImageStatus) -> bool:
        ...
    @typing.overload
    def __ne__(self, other: typing.SupportsInt | typing.SupportsIndex) -> bool:
        ...
    @typing.overload
    def __ne__(self, other: typing.Any) -> bool:
        ...
    @typing.overload
    def __or__(self, other: ImageStatus) -> int:
        ...
    @typing.overload
    def __or__(self, other: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    @typing.overload
    def __rand__(self, other: ImageStatus) -> int:
        ...
    @typing.overload
    def __rand__(self, other: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    def __repr__(self) -> str:
        ...
    @typing.overload
    def __ror__(self, other: ImageStatus) -> int:
        ...
    @typing.overload
    def __ror__(self, other: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    @typing.overload
    def __rxor__(self, other: ImageStatus) -> int:
        ...
    @typing.overload
    def __rxor__(self, other: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    def __setstate__(self, state: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def __str__(self) -> str:
        ...
    @typing.overload
    def __xor__(self, other: ImageStatus) -> int:
        ...
    @typing.overload
    def __xor__(self, other: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    @property
    def name(self) -> str:
        ...
    @property
    def value(self) -> int:
        ...
class ImageAugmenter:
    pass
class ImageFieldRequest:
    def __init__(self, spec: ImageSpec, first_blob: typing.SupportsInt | typing.SupportsIndex, geometry_first_blob: typing.SupportsInt | typing.SupportsIndex, writer: PixelWriter, out: typing_extensions.Buffer, augmenter: ImageAugmenter | None = None) -> None:
        """
        augmenter: an Augmenter with a row for each sample, which writes in place of `writer`.
        """
class PendingImages:
    """
    A submitted batch of images; dropping it cancels the batch without waiting.
    """
    def cancel(self) -> None:
        ...
    def message(self, index: typing.SupportsInt | typing.SupportsIndex) -> str:
        ...
    def report(self, field: typing.SupportsInt | typing.SupportsIndex) -> dict:
        """
        sizes [N, 2] and resized [N, 2] as (height, width), corners [N, 2] as (top, left), boxes [N, 4] as (x0, y0, x1, y1), flips [N].
        """
    def wait(self, timeout_seconds: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        ...
    @property
    def busy_seconds(self) -> float:
        ...
    @property
    def status(self) -> numpy.typing.NDArray[numpy.int32]:
        """
        [fields * samples] int32: an ImageStatus each.
        """
class ImageDecoder:
    """
    The decoder threads.
    """
    def __init__(self, threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def submit(self, bytes: ByteBatch, fields: collections.abc.Sequence[ImageFieldRequest], seed: typing.SupportsInt | typing.SupportsIndex, positions: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], max_pixels: typing.SupportsInt | typing.SupportsIndex, *, urgent: bool = False) -> PendingImages:
        """
        urgent: decoded before everything in the queue.
        """
class AugmentThreads:
    """
    The calling thread, and helpers up to this number in all.
    """
    def __init__(self, threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class Augmenter(ImageAugmenter):
    """
    The augmentation of one batch: rows [N, 32], a row per sample.
    """
    def __init__(self, rows: numpy.typing.NDArray[numpy.float32], stages: typing.SupportsInt | typing.SupportsIndex, divisor: typing.SupportsFloat | typing.SupportsIndex, mean: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"], std: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"], nearest: bool, dtype: Dtype, channels_last: bool, height: typing.SupportsInt | typing.SupportsIndex, width: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def write(self, pixels: numpy.typing.NDArray[numpy.uint8], sample: typing.SupportsInt | typing.SupportsIndex, out: typing_extensions.Buffer) -> None:
        """
        Augments `pixels` [height, width, 3] uint8 into sample number `sample` of the buffer `out`.
        """
    @property
    def sample_bytes(self) -> int:
        ...
    @property
    def samples(self) -> int:
        ...
def ada(images: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], rows: typing.Any, noise_key: typing.Any, eps: typing.Any, stages: typing.SupportsInt | typing.SupportsIndex, mode: typing.SupportsInt | typing.SupportsIndex, warp_taps: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(12)"], bands: typing.Annotated[numpy.typing.ArrayLike, numpy.float64], out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], threads: AugmentThreads) -> None:
    """
    Writes `images` [N, C, H, W], float32 or float64 in any strides, to `out` as their rows [N, 40] say.
    """
def ada_layout() -> dict:
    """
    Columns of a row, bits of the stages, modes and the noise's purpose, by name.
    """
def augment(images: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], rows: numpy.typing.NDArray[numpy.float32], stages: typing.SupportsInt | typing.SupportsIndex, divisor: typing.SupportsFloat | typing.SupportsIndex, mean: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"], std: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(3)"], nearest: bool, out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], dtype: Dtype, channels_last: bool, threads: AugmentThreads) -> None:
    """
    Writes `images` [N, H, W, 1 or 3], uint8 or float32 in any strides, to `out` as their rows [N, 32] say: [N, C, H, W], or [N, H, W, C] where channels_last, contiguous.
    """
def augment_kernels() -> str:
    """
    The instruction set in use.
    """
def augment_layout() -> dict:
    """
    Columns of a row and bits of the stages, by name.
    """
def begin_end(seconds: typing.SupportsFloat | typing.SupportsIndex) -> None:
    """
    Python is about to end on the calling thread: waits for other threads to sleep in native code.
    """
def check_room_for_thread() -> None:
    """
    Raises RuntimeError if there is no memory for a thread and what it allocates as it begins.
    """
def check_threads(count: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Raises RuntimeError if the system does not give so many threads at once.
    """
def crc32(arg0: typing_extensions.Buffer) -> int:
    ...
def fork_count() -> int:
    """
    How many forks lie between the process that loaded this module and this one.
    """
def geometries(spec: ImageSpec, widths: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], heights: typing.Annotated[numpy.typing.ArrayLike, numpy.int64], seed: typing.SupportsInt | typing.SupportsIndex, positions: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]) -> tuple:
    ...
def give_up_open_files(seconds: typing.SupportsFloat | typing.SupportsIndex) -> int:
    """
    Closes the shards that this process keeps open, of all loaders, and returns their number. They are opened again when next read. seconds: how long to wait, as closing hangs where a server is gone.
    """
def index_tar(path: str, name: str) -> dict:
    """
    The rows of one tar as keyword arguments of Rows; see shards/tar.py.
    """
def index_zip(path: str, name: str) -> dict:
    """
    The rows of one zip as keyword arguments of Rows; see shards/zip.py.
    """
def is_transient(errno: typing.SupportsInt | typing.SupportsIndex) -> bool:
    """
    Whether this errno is transient: the same read may succeed a moment later.
    """
def jpeg_damage(content: typing_extensions.Buffer) -> str:
    """
    What is damaged in a JPEG, found by reading all of it; empty for one that is whole.
    """
def jpeg_tells_of_memory(message: str) -> bool:
    """
    Whether what a libjpeg said is about the memory of this process, not about the image.
    """
def load_jpeg_library(paths: collections.abc.Sequence[str]) -> typing.Any:
    """
    (path, abi, reasons) of the libjpeg in use; path is None where none of `paths` will do.
    """
def mixture_advance(shares: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], given: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], owed: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], count: typing.SupportsInt | typing.SupportsIndex) -> tuple:
    ...
def mixture_take(shares: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], given: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], owed: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], count: typing.SupportsInt | typing.SupportsIndex) -> tuple:
    ...
def open_files() -> tuple[int, int]:
    """
    (shards that this process keeps open, shards that it no longer keeps and has not closed yet).
    """
def parse_image_header(content: typing_extensions.Buffer) -> tuple[bool, int, int, int, int, int, int, bool, int]:
    ...
def permute(indices: numpy.typing.NDArray[numpy.int64], n: numpy.typing.NDArray[numpy.int64], key0: numpy.typing.NDArray[numpy.uint64], key1: numpy.typing.NDArray[numpy.uint64]) -> numpy.typing.NDArray[numpy.int64]:
    ...
def philox_bits(seed: typing.SupportsInt | typing.SupportsIndex, positions: numpy.typing.NDArray[numpy.int64], purpose: typing.SupportsInt | typing.SupportsIndex, block: typing.SupportsInt | typing.SupportsIndex) -> numpy.typing.NDArray[numpy.uint32]:
    ...
def pixel_kernels() -> str:
    """
    The instruction set in use.
    """
def prepare_thread() -> None:
    """
    Allocates what the calling thread needs once, while there is memory.
    """
def scaled_box(box: tuple, width: typing.SupportsInt | typing.SupportsIndex, height: typing.SupportsInt | typing.SupportsIndex, denominator: typing.SupportsInt | typing.SupportsIndex, orientation: typing.SupportsInt | typing.SupportsIndex) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    ...
def sleep_at_the_end() -> None:
    """
    Returns at once, or sleeps for ever if Python is about to end on another thread.
    """
def sleep_for_ever() -> None:
    """
    For a thread that must not go on, as Python ends.
    """
def use_augment_kernels(arg0: str) -> None:
    """
    Forces an instruction set, for tests and benchmarks; the empty string chooses the best again.
    """
def use_pixel_kernels(arg0: str) -> None:
    """
    Forces an instruction set, for tests and benchmarks; the empty string chooses the best again.
    """
def write_image(rgb: typing.Annotated[numpy.typing.ArrayLike, numpy.uint8], box: typing.Annotated[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], "FixedSize(4)"], resized: typing.Annotated[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(2)"], crop: typing.Annotated[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(4)"], flip: bool, filter: typing.SupportsInt | typing.SupportsIndex, writer: PixelWriter, out: numpy.typing.NDArray[numpy.uint8], sample: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Resizes, crops and flips `rgb` [height, width, 3] uint8 and writes it as sample number `sample` of the buffer `out`.
    """
CHANGED_FILE: int = -2
MAX_JPEG_SCANS: int = 256
SHORT_FILE: int = -1
