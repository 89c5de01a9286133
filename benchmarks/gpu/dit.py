"""A small diffusion transformer and its training step: what a loader has to keep busy.

images: [N, 3, H, W] in [-1, 1], of any float dtype. The model sees patches, adaLN-zero blocks see the time,
and the loss is that of flow matching: predict noise - image at a place between them. Matrix products and
attention run in bfloat16, weights and AdamW in float32, as usual.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Size:
    """The defaults are DiT-B: 130 million weights, 256 tokens for an image of 256x256."""

    side: int = 256
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12


class Block(nn.Module):
    """Attention and an MLP, both scaled, shifted and gated by the time."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(time)[:, None].chunk(6, -1)
        n, tokens, width = x.shape
        qkv = self.qkv(self.norm(x) * (1 + scale) + shift)
        q, k, v = qkv.view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + gate * self.out(attended.transpose(1, 2).reshape(n, tokens, width))
        return x + gate_mlp * self.mlp(self.norm(x) * (1 + scale_mlp) + shift_mlp)


class DiT(nn.Module):
    """Images at a time -> velocities of the same shape."""

    def __init__(self, size: Size):
        super().__init__()
        self.size = size
        tokens = (size.side // size.patch) ** 2
        self.embed = nn.Conv2d(3, size.width, size.patch, size.patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, tokens, size.width))
        self.time = nn.Sequential(nn.Linear(256, size.width), nn.SiLU(), nn.Linear(size.width, size.width))
        self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, 3 * size.patch**2)

    def forward(self, images: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2) + self.places
        frequencies = torch.exp(-math.log(1e4) * torch.arange(128, device=time.device) / 128)
        angles = 1000 * time[:, None] * frequencies
        conditioned = functional.silu(self.time(torch.cat([angles.cos(), angles.sin()], 1)))
        for block in self.blocks:
            x = block(x, conditioned)
        rows = self.size.side // self.size.patch
        x = self.head(self.norm(x)).view(-1, rows, rows, 3, self.size.patch, self.size.patch)
        return x.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)


class Training:
    """A model with its optimizer; `step` never waits for the device."""

    def __init__(self, size: Size, device: str, seed: int = 0):
        torch.manual_seed(seed)
        self.model = DiT(size).to(device)
        self._device = device
        self._optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, fused=device == "cuda")

    def step(self, images: torch.Tensor) -> torch.Tensor:
        """One step on a batch; its loss, on the device."""
        images = images.float()
        noise = torch.randn_like(images)
        time = torch.rand(len(images), device=images.device)
        place = time[:, None, None, None]
        with torch.autocast(self._device, torch.bfloat16):
            velocity = self.model(images + place * (noise - images), time)
        loss = functional.mse_loss(velocity.float(), noise - images)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return loss.detach()
