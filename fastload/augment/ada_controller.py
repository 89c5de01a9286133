"""`AdaController`: how strong the augmentation must be, told by how sure the discriminator is of real images.

In: the discriminator's logits of real images (augmented, as it sees them). Out: `pipe.p`, changed in place on
its device. Promised: no step waits for the GPU; p and r_t are the same on all ranks; everything that a
resumed run needs is in state_dict. The rule is that of StyleGAN2-ADA: with r_t the mean of sign(D(real)) over
everything reported since the last update, on all ranks (nothing reported: the mean before), every
`ada_interval` batches

    p = max(0, p + sign(r_t - ada_target) batch_size ada_interval / (1000 ada_kimg))

There is no upper limit. Above p = 0.8 augmentations leak into generated images: `stats()` and
`state_dict()`, which wait for the GPU anyway, warn of it.
"""

import warnings
from typing import Any, ClassVar

import torch
from torch import nn

from fastload.augment.device_draws import FixedDtypes, strengths
from fastload.errors import ConfigError

LEAKING_P = 0.8  # arXiv 2006.06676: above it, generators learn augmentations
ROUNDING = 1e-6  # of p, a float32 that many steps are added up in


class AdaController(FixedDtypes):
    """Steers `pipe.p`; a module that holds the pipe, so that its state_dict is the pipe's state too.

    pipe: an AdaPipe, or any module with a buffer p. batch_size: real images of a step, over all ranks.
    ada_target: the r_t that is aimed at; None: p stays as it is, and r_t is measured all the same.
    ada_interval: batches between updates. ada_kimg: thousands of images in which p can rise from 0 to 1; 500
    from scratch, 100 is usual for transfer. p: where to begin; None: at 0, and without a target where the
    pipe is. group: the process group of those who share the batch; None: all. What is reported within an
    interval is each rank's own: a state saved by one rank for all is exact after multiples of ada_interval
    batches. On the CPU, controller and pipe move to the device of the first logits.
    """

    fixed_dtypes: ClassVar[dict[str, torch.dtype]] = {"sums": torch.float32, "r_t": torch.float32}
    sums: torch.Tensor  # [2] float32: signs since the last update, and how many
    r_t: torch.Tensor  # [] float32

    def __init__(
        self,
        pipe: nn.Module,
        batch_size: int,
        *,
        ada_target: float | None = 0.6,
        ada_interval: int = 4,
        ada_kimg: float = 500,
        p: float | None = None,
        group: Any = None,
    ):
        super().__init__()
        if not isinstance(getattr(pipe, "p", None), torch.Tensor):
            shown = f"{type(pipe).__name__}(...)" if isinstance(pipe, nn.Module) else repr(pipe)
            raise ConfigError(f"AdaController(pipe={shown}): give a pipe with a buffer p, such as AdaPipe.")
        if ada_target is not None and not (isinstance(ada_target, int | float) and -1.0 <= ada_target <= 1.0):
            raise ConfigError(f"ada_target={ada_target!r}: r_t lies in [-1, 1]; None keeps p as it is.")
        for name, value in (("batch_size", batch_size), ("ada_interval", ada_interval)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name}={value!r}: give an integer from 1.")
        strengths("AdaController", {"ada_kimg": ada_kimg, "p": 0.0 if p is None else p})
        if not ada_kimg > 0:
            raise ConfigError(f"AdaController(ada_kimg={ada_kimg!r}): give more than 0.")
        self.pipe, self.group = pipe, group
        self.batch_size, self.ada_target = batch_size, ada_target
        self.ada_interval, self.ada_kimg = ada_interval, ada_kimg
        self.batches = 0
        options = {"dtype": torch.float32, "device": pipe.p.device}
        self.register_buffer("sums", torch.zeros(2, **options))
        self.register_buffer("r_t", torch.zeros((), **options))
        if p is not None or ada_target is not None:
            with torch.no_grad():
                pipe.p.fill_(p or 0.0)

    @property
    def p(self) -> torch.Tensor:
        """[] float32, the pipe's own: reading its number waits for the GPU."""
        return self.pipe.p

    @torch.no_grad()
    def report(self, real_logits: torch.Tensor) -> None:
        """Counts the signs of logits of real images, of any shape, in the main phase and a regularizer's.

        Not within a backward pass: what torch.utils.checkpoint computes again would count twice, and raises.
        """
        device = real_logits.device
        if device not in (self._device, self.p.device):
            if not hasattr(self.pipe, "follow"):
                name = type(self.pipe).__name__
                raise ConfigError(
                    f"the logits are on {device} and {name} is on {self.p.device}: move it with "
                    ".to(logits.device)."
                )
            self.pipe.follow(device, "logits")
        self.follow(device, "logits")
        from fastload.ops.ada import registered

        # The operator has the same check, for torch.compile cannot trace it.
        count = registered.count_signs if torch.compiler.is_compiling() else registered.count_signs_now
        count(self.sums, real_logits.detach())

    @torch.no_grad()
    def step(self) -> None:
        """To be called after each batch, on all ranks alike; every ada_interval-th changes p."""
        self.batches += 1
        if self.batches % self.ada_interval:
            return
        if self.p.device != self._device and self.may_follow(self.p.device):  # nothing was reported here yet
            self.follow(self.p.device, "pipes")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.sums, group=self.group)
        total, count = self.sums
        self.r_t.copy_(torch.where(count > 0, total / count.clamp(min=1), self.r_t))
        self.sums.zero_()
        if self.ada_target is not None:
            largest_step = self.batch_size * self.ada_interval / (self.ada_kimg * 1000)
            self.p.copy_((self.p + (self.r_t - self.ada_target).sign() * largest_step).clamp(min=0))

    def stats(self) -> dict[str, float]:
        """{"p", "r_t"} as numbers, for a log; waits for the GPU."""
        found = {"p": self.p.item(), "r_t": self.r_t.item()}
        self._warn_of_leaks(found["p"])
        return found

    def get_extra_state(self) -> dict[str, int]:
        self._warn_of_leaks(self.p.item())
        return {"batches": self.batches}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.batches = state["batches"]

    def extra_repr(self) -> str:
        return f"ada_target={self.ada_target}, ada_interval={self.ada_interval}, ada_kimg={self.ada_kimg}"

    def _warn_of_leaks(self, p: float) -> None:
        if p > LEAKING_P + ROUNDING:
            warnings.warn(
                f"p is {p:.3f}: above {LEAKING_P} augmentations leak into generated images; the data may be "
                "too few, or ada_target too low.",
                stacklevel=3,
            )
