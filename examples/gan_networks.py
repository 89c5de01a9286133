"""DCGAN's generator and discriminator (arXiv 1511.06434), for square images, with classes or without.

In: z [N, 100], or images [N, 3, size, size] in [-1, 1], size a power of two; labels [N] int64, which
count only where there are classes. Out: images, or logits [N]. Weights begin as N(0, 0.02), as published.

Classes: the generator is given an embedding of the label beside z. The discriminator's last layer has one
filter for all classes and one more for each, whose answers are added: the projection discriminator (arXiv
1802.05637) with the last feature map as what is projected, and no layer more than DCGAN has.
"""

import torch
from torch import nn

Z_SIZE = 100
SMALLEST = 4  # pixels, the side of the first feature map
WIDEST = 8  # times `width`: no layer has more channels


def channels(size: int, width: int) -> list[int]:
    """Channels of the feature maps from size / 2 pixels down to 4: width, 2 width ... 8 width for 64."""
    levels = size.bit_length() - SMALLEST.bit_length()
    return [width * min(2**level, WIDEST) for level in range(levels)]


class Generator(nn.Module):
    def __init__(self, size: int, width: int, classes: int = 0):
        super().__init__()
        self.embed = nn.Embedding(classes, Z_SIZE) if classes else None
        layers, before = [], 2 * Z_SIZE if classes else Z_SIZE
        for number, after in enumerate(reversed(channels(size, width))):
            stride, padding = (2, 1) if number else (1, 0)  # the first makes 4x4 of 1x1
            layers.append(nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False))
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            before = after
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(before, 3, 4, 2, 1), nn.Tanh())
        self.layers.apply(begin)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        return self.layers(z[:, :, None, None])


class Discriminator(nn.Module):
    """batch_norm: as published; False for losses that penalize the gradient of each image's logit: BatchNorm
    makes that logit depend on the rest of the batch, and the penalty would be of something else."""

    def __init__(self, size: int, width: int, classes: int = 0, batch_norm: bool = True):
        super().__init__()
        layers, before = [], 3
        for number, after in enumerate(channels(size, width)):
            normalized = batch_norm and number > 0  # never on the pixels' own layer, as published
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=not normalized))
            layers += [nn.BatchNorm2d(after)] if normalized else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1 + classes, SMALLEST))
        self.layers.apply(begin)

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        logits = self.layers(images).flatten(1)
        if logits.shape[1] == 1:
            return logits[:, 0]
        return logits[:, 0] + logits[:, 1:].gather(1, labels[:, None])[:, 0]


def begin(layer: nn.Module) -> None:
    """The weights of one layer before the first step."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
