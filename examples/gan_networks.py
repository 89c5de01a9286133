"""DCGAN's generator and discriminator (arXiv 1511.06434), for square images, with classes or without.

In: z [N, 100], or images [N, 3, size, size] in [-1, 1], size a power of two; labels [N] int64, used only
with classes. Out: images, or logits [N]. Weights are initialized from N(0, 0.02), as published.

Classes: the generator gets an embedding of the label beside z. The discriminator's last layer has a filter
for all classes and another for each class, whose outputs are added: the projection discriminator (arXiv
1802.05637), which projects the last feature map and has no more layers than DCGAN.
"""

import torch
from torch import nn

Z_SIZE = 100
SMALLEST_MAP = 4  # pixels, the side of the first feature map
MAX_WIDENING = 8  # times `width`: no layer has more channels


def channels(size: int, width: int) -> list[int]:
    """Channels of the feature maps from size / 2 pixels down to 4: width, 2 width ... 8 width for 64."""
    layers = size.bit_length() - SMALLEST_MAP.bit_length()
    return [width * min(2**layer, MAX_WIDENING) for layer in range(layers)]


class Generator(nn.Module):
    def __init__(self, size: int, width: int, classes: int = 0):
        super().__init__()
        self.embed = nn.Embedding(classes, Z_SIZE) if classes else None
        layers, inputs = [], 2 * Z_SIZE if classes else Z_SIZE
        for number, outputs in enumerate(reversed(channels(size, width))):
            stride, padding = (2, 1) if number else (1, 0)  # the first upsamples 1x1 to 4x4
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, 2, 1), nn.Tanh())
        self.layers.apply(initialize)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        return self.layers(z[:, :, None, None])


class Discriminator(nn.Module):
    """batch_norm: as published; False for losses that penalize the gradient of each image's logit: BatchNorm
    makes a logit depend on the rest of the batch, which such a penalty must not see."""

    def __init__(self, size: int, width: int, classes: int = 0, batch_norm: bool = True):
        super().__init__()
        layers, inputs = [], 3
        for number, outputs in enumerate(channels(size, width)):
            normalized = batch_norm and number > 0  # not the first layer, as published
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not normalized))
            layers += [nn.BatchNorm2d(outputs)] if normalized else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1 + classes, SMALLEST_MAP))
        self.layers.apply(initialize)

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        logits = self.layers(images).flatten(1)
        if logits.shape[1] == 1:
            return logits[:, 0]
        return logits[:, 0] + logits[:, 1:].gather(1, labels[:, None])[:, 0]


def initialize(layer: nn.Module) -> None:
    """Sets the initial weights of a layer."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
