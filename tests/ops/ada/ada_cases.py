"""Images and parameters for the tests of adaptive augmentation."""

import math

import torch

from fastload.ops.ada.ada_params import AdaParams

STAGES = {
    "warp": ("G_inv",),
    "color": ("C",),
    "filter": ("gains",),
    "noise": ("sigma", "noise_key"),
    "eps": ("sigma", "eps"),
    "cutout": ("cut_size", "cut_center"),
}


def images(n, channels, height, width, dtype=torch.float64, seed=0):
    """Noise, which shows every mistake."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, height, width, dtype=torch.float64, generator=generator).to(dtype)


def warps(n, height, width, seed=0, dtype=torch.float64):
    """Rotations by any angle, scaled by about 1/2 to 2, some stretched, moved by up to half the sides."""
    generator = torch.Generator().manual_seed(seed)

    def within(low, high):
        return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)

    angle, scale, stretch = within(0, 2 * math.pi), within(-1, 1).exp2(), within(-0.5, 0.5).exp2()
    G_inv = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    G_inv[:, 0, 0], G_inv[:, 0, 1] = angle.cos() * scale * stretch, -angle.sin() * scale
    G_inv[:, 1, 0], G_inv[:, 1, 1] = angle.sin() * scale * stretch, angle.cos() * scale
    G_inv[:, 0, 2], G_inv[:, 1, 2] = within(-0.5, 0.5) * width, within(-0.5, 0.5) * height
    return G_inv.to(dtype)


def params(n, channels, height, width, stages=("warp", "color", "filter", "noise", "cutout"), seed=0):
    """Strong parameters of these stages, in float64 but exact in float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    made = {
        "G_inv": warps(n, height, width, seed).float(),
        "C": torch.eye(4) + 0.3 * normal(n, 4, 4),
        "gains": normal(n, 4).mul(0.5).exp2(),
        "sigma": normal(n).abs() * 0.3,
        "noise_key": torch.randint(-(2**31), 2**31, (n, 2), generator=generator).int(),
        "eps": normal(n, channels, height, width),
        "cut_size": torch.rand(n, generator=generator),
        "cut_center": torch.rand(n, 2, generator=generator),
    }
    return AdaParams(**{name: made[name] for stage in stages for name in STAGES[stage]})
