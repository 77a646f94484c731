"""LeNet, a convolutional network for digits (LeCun et al. 1998, https://doi.org/10.1109/5.726791).

    p(label | x) = softmax(W f(x) + b),    f: two convolutions with pooling, and a hidden layer

Density: none; it classifies.
Sampling: none.
Differs from the paper: rectified linear units in place of sigmoids, max-pooling in place of subsampling with trained
weights, a softmax in place of radial basis functions, one hidden layer in place of two, and more channels, all of which
are connected. The checkpoints are trained with AdamW, a warm-up, a cosine schedule and averaged weights in place of a
stochastic diagonal Levenberg-Marquardt method.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.capabilities import Classifier
from zoo.config import ImageShape, Size
from zoo.errors import ConfigError


class LeNet(Classifier):
    """Classifier of small images; FID, KID, precision and recall are computed from its last hidden layer.

    Args:
        event_shape: (C, H, W); H and W are at least 12.
        num_classes: Number of classes.
        channels: Number of channels of the first convolution; the second has twice as many.
        num_features: Number of units of the hidden layer.
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
        self.event_shape, self.num_classes, self.num_features = tuple(event_shape), num_classes, num_features
        inputs, height, width = event_shape
        if min(height, width) < 12:
            raise ConfigError(f"event_shape: expected at least 12x12 pixels, found {height}x{width}")
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
        return self.body(x.to(self.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, self.head(features)
