"""LeNet, a convolutional network for digits (LeCun et al. 1998, https://doi.org/10.1109/5.726791).

    p(label given x) = softmax(W f(x) + b),    f = two convolutions with pooling and a hidden layer.

Differs from the paper: rectified linear units, max-pooling and a softmax, as is common today, and more channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.capabilities import Classifier
from zoo.config import ImageShape, Size


class LeNet(Classifier):
    """Classifier of grey images whose last hidden layer serves as features for FID, KID and precision/recall.

    Args:
        event_shape: (C, H, W); H and W at least 16.
        num_classes: number of labels.
        channels: of the first convolution; the second has twice as many.
        num_features: width of the hidden layer.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        num_classes: Size = 10,
        channels: Size = 32,
        num_features: Size = 128,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.num_classes = num_classes
        self.num_features = num_features
        inputs, height, width = event_shape
        side = (height // 2 - 4) // 2 * ((width // 2 - 4) // 2)
        self.body = nn.Sequential(
            nn.Conv2d(inputs, channels, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * channels * side, num_features),
            nn.ReLU(),
        )
        self.head = nn.Linear(num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, self.head(features)
