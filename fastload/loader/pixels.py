"""uint8 pixels to training tensors: which field is augmented how, with which random draws, and where.

In: a spec, then for each batch its positions. Out: either one `FieldAugment` for each image field, with which
decoder threads write finished images one by one, or finished tensors [N, 3, height, width] of whole batches.
Promised: both draw the same for the same position; masks (filter="nearest", or like= another field) are
warped with their picture, by the nearest pixel where they are to keep their values, and neither recoloured
nor cut; a field for which nothing is random but the horizontal flip, which decoding does, is not touched
here.
"""

from typing import Any, NamedTuple

import numpy as np

from fastload import _native
from fastload.caching import cached_property
from fastload.decode.images import tensor_over
from fastload.fields import Image, Int
from fastload.loader.specs import PipelineSpec
from fastload.normalize import Normalization
from fastload.ops.fused.augment_params import IDENTITY, Stage
from fastload.ops.fused.draw_params import draw_params
from fastload.ops.fused.draw_plan import DrawPlan
from fastload.ops.fused.fused_augment import augment_rows
from fastload.ops.fused.mix import mix
from fastload.ops.transfer import to_device
from fastload.ops.twins import require_triton

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}


class FieldPlan(NamedTuple):
    """How the pixels of one image field become its tensor."""

    plan: DrawPlan
    rule: Normalization
    height: int
    width: int
    nearest: bool

    @property
    def filter(self) -> str:
        return "nearest" if self.nearest else "bilinear"


class FieldAugment:
    """What is drawn for one field of one batch; `native` and `reference` write one image each."""

    def __init__(self, field: FieldPlan, rows: Any, dtype: str, layout: str):
        self._field, self._rows, self._dtype, self._layout = field, rows, dtype, layout

    @cached_property
    def native(self) -> "_native.Augmenter":
        """For decoder threads, and for images that Pillow decoded."""
        rule = self._field.rule
        return _native.Augmenter(
            self._rows.numpy(),
            int(self._field.plan.stages),
            rule.divisor,
            rule.mean,
            rule.std,
            self._field.nearest,
            getattr(_native.Dtype, self._dtype),
            self._layout == "channels_last",
            self._field.height,
            self._field.width,
        )

    def reference(self, pixels: np.ndarray, i: int, out: Any) -> None:
        """Sample i of the batch, `pixels` [height, width, 3] uint8, into `out` [3, height, width]."""
        import torch

        images = torch.from_numpy(np.array(pixels))[None]  # a copy: torch wants it writable
        rows, field = self._rows[i : i + 1], self._field
        how = {"filter": field.filter, "impl": "reference"}
        augment_rows(images, rows, field.plan.stages, field.rule, out[None], **how)


class Pixels:
    """The image fields of a spec, from uint8 pixels on.

    threads: of the native kernels. memory: a pool, from which the tensors of whole batches on the CPU come:
    new memory takes longer to get than to fill.
    """

    def __init__(self, spec: PipelineSpec, threads: int, memory: "_native.BufferPool"):
        self._fields, self._augment, self._spec = spec.fields, spec.augment, spec.decode
        self._threads, self._memory, self.mixes = threads, memory, spec.augment.mixes
        fields = spec.decode.image_fields
        self.fields = {
            name: self._plan(name, field, fields.get(field.like, field)) for name, field in fields.items()
        }

    def _plan(self, name: str, field: Image, sized: Image) -> FieldPlan:
        height, width = sized.size
        nearest = field.filter == "nearest"
        colors = not nearest and field.like is None
        plan = self._augment.plan(height, width, xflip=False, colors=colors)
        rule = IDENTITY if self._spec.dtype == "uint8" else self._spec.normalizations[name]
        return FieldPlan(plan, rule, height, width, nearest)

    @property
    def sample_bytes(self) -> int:
        """Bytes of the finished images of one sample."""
        item = _ITEM_BYTES[self._spec.dtype]
        return sum(3 * field.height * field.width * item for field in self.fields.values())

    def augments(self, positions: np.ndarray) -> dict[str, FieldAugment]:
        """field -> what is drawn for it, for the fields of which anything is."""
        drawn = {}
        for name, field in self.fields.items():
            if field.plan.stages:
                rows = draw_params(field.plan, positions, self._spec.seed)
                drawn[name] = FieldAugment(field, rows, self._spec.dtype, self._spec.layout)
        return drawn

    def finished(self, name: str, pixels: Any, positions: np.ndarray) -> Any:
        """[N, 3, height, width] in the loader's dtype and layout.

        pixels: of that shape, uint8 and channels last. On a GPU everything is launched on the current stream,
            and nothing waits.
        """
        import torch

        field, spec = self.fields[name], self._spec
        impl = "triton" if pixels.device.type == "cuda" else "native"
        if impl == "triton":
            require_triton(pixels.device)
        form = torch.channels_last if spec.layout == "channels_last" else torch.contiguous_format
        if spec.dtype == "uint8" and not field.plan.stages:
            # On a GPU DALI's memory must not leave the loader: torch cannot hold it for another stream.
            is_done = pixels.device.type == "cpu" and form == torch.channels_last
            return pixels if is_done else pixels.clone(memory_format=form)
        shape = (len(positions), 3, field.height, field.width)
        if impl == "native":
            out = self._tensor(len(positions), field)
        else:
            kind = getattr(torch, spec.dtype)
            out = torch.empty(shape, dtype=kind, device=pixels.device, memory_format=form)
        rows = draw_params(field.plan, positions, spec.seed, device=pixels.device)
        stages: Stage = field.plan.stages
        how = {"filter": field.filter, "impl": impl, "threads": self._threads}
        return augment_rows(pixels.permute(0, 2, 3, 1), rows, stages, field.rule, out, **how)

    def _tensor(self, n: int, field: FieldPlan) -> Any:
        """An empty tensor for a batch on the CPU."""
        dtype, layout = self._spec.dtype, self._spec.layout
        buffer = self._memory.acquire(3 * n * field.height * field.width * _ITEM_BYTES[dtype])
        return tensor_over(buffer, n, field.height, field.width, dtype, layout)

    def mixed(self, batch: dict, positions: np.ndarray) -> dict:
        """The batch after mixup or CutMix: images, "NAME.mixed" for every tensor of labels, "__lambda__"."""
        augment, seed = self._augment, self._spec.seed
        share = None
        for name, field in self.fields.items():
            drawn = augment.draw_mix(positions, seed, field.height, field.width)
            images = batch[name]
            of_field, blend, boxes = (to_device(part, images.device) for part in drawn)
            out = None if images.is_cuda else self._tensor(len(positions), field)
            batch[name] = mix(images, blend, boxes, out)
            share = of_field if share is None else share
        for name, field in self._fields.items():
            if isinstance(field, Int):
                batch[f"{name}.mixed"] = batch[name].roll(1, 0)
        batch["__lambda__"] = share
        return batch
