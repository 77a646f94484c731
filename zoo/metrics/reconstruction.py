"""Squared error of reconstructions, beside that of principal components.

    squared_error = mean over images of the sum over pixels of (x' - x)^2,    pixels in [0, 1]

The baseline describes an image by as many numbers as the code has: its coordinates along the leading eigenvectors of
the covariance of the training images. It is the best linear code (Bishop 2006, section 12.1.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.capabilities import Reconstructive
from zoo.data.base import DataModule, Which
from zoo.measurement import Measurement, mean_and_error
from zoo.metrics.examples import Index, check_shapes, measuring, per_example, slice_details


def squared_error(
    model: Reconstructive,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Measures `squared_error` of a model and `squared_error_pca` of as many principal components.

    Args:
        model: The model.
        data: The data set; its training images give the principal components.
        split, index, batch_size, progress: As in `nll`.

    Raises:
        DataError: The shapes of model and data differ.
    """
    check_shapes(model, data)
    size = math.prod(model.latent_shape)
    components = PrincipalComponents(data, size)
    found = []
    functions = {"squared_error": model.squared_error, "squared_error_pca": components.squared_error}
    for name, function in functions.items():

        def of_batch(batch: Batch, function: Callable[[Tensor], Tensor] = function) -> Tensor:
            return function(batch.x)

        with measuring(model):
            errors = per_example(
                of_batch,
                data,
                split,
                index=index,
                batch_size=batch_size,
                device=model.device,
                label=f"{name} on {data.name} {split}",
                progress=progress,
            )
        value, error = mean_and_error(errors)
        details = {"code": size} | slice_details(errors, data, split, index)
        found.append(Measurement(name, value, error, "", "estimate", len(errors), 0, split, data.name, details))
    return found


class PrincipalComponents:
    """The leading eigenvectors of the covariance of training images.

    Args:
        data: The data set.
        num: Number of components, at most the number of pixels.
    """

    def __init__(self, data: DataModule, num: int) -> None:
        size = math.prod(data.event_shape)
        total, products, count = torch.zeros(size).double(), torch.zeros(size, size).double(), 0
        for batch in data.batches("train", batch_size=5000):
            x = batch.x.flatten(1)
            total += x.double().sum(0)
            products += (x.T @ x).double()  # float32 within a batch: its error is far below that of the data
            count += len(x)
        self.mean = total / count
        _, vectors = torch.linalg.eigh(products / count - self.mean[:, None] * self.mean)
        self.vectors = vectors[:, -num:]  # [D, num], in increasing order of variance

    def squared_error(self, x: Tensor) -> Tensor:
        """The sum over pixels of the squared difference between images and projections: [B, *event_shape] -> [B]."""
        centred = x.cpu().double().flatten(1) - self.mean
        return (centred.square().sum(1) - (centred @ self.vectors).square().sum(1)).clamp(min=0)
