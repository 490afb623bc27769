"""ResNet from torchvision as a feature extractor."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from chipperf.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


class Backbone(nn.Module):
    """The convolutional stages of a ResNet, with torchvision's names of the weights.

    The reference starts from ImageNet weights, freezes the statistics and scales of every BatchNorm, because the
    batches of a detector are too small to estimate statistics, and does not train the stem and the first stage.

    Args:
        name: torchvision's name of the ResNet, for example ``resnet50``.
        dilation: Whether to dilate the last stage instead of striding it: stride 16 instead of 32 ("DC5").
        train_whole: Whether to train every stage, with ordinary BatchNorm, for training without ImageNet weights.

    Attributes:
        channels: Channels of the four stages' feature maps.
    """

    def __init__(self, name: str, *, dilation: bool = False, train_whole: bool = False) -> None:
        super().__init__()
        resnet = torchvision.models.get_model(
            name,
            weights=None,
            norm_layer=nn.BatchNorm2d if train_whole else FrozenBatchNorm2d,
            replace_stride_with_dilation=[False, False, dilation],
        )
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        last = resnet.fc.in_features
        self.channels = (last // 8, last // 4, last // 2, last)
        if not train_whole:
            self.conv1.requires_grad_(False)
            self.layer1.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the stages' feature maps of images ``(B, 3, H, W)``, at strides 4, 8, 16 and 32 (16 if dilated)."""
        features = [self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))]
        for stage in (self.layer2, self.layer3, self.layer4):
            features.append(stage(features[-1]))
        return features

    def load_weights(self, path: Path) -> None:
        """Load the weights of a torchvision classifier of the same name, except its last, linear layer.

        Raises:
            DataError: The file cannot be read, or holds the weights of another model.
        """
        hint = "give the state_dict of torchvision's model, for example resnet50-0676ba61.pth"
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise DataError(f"{path}: the backbone's weights cannot be read: {error}", hint=hint) from error
        try:
            self.load_state_dict({name: value for name, value in weights.items() if not name.startswith("fc.")})
        except (AttributeError, RuntimeError) as error:
            raise DataError(f"{path}: not the weights of this backbone: {error}", hint=hint) from error
