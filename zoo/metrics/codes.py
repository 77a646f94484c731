"""What codes say about labels: accuracy of the nearest training code.

The measure is that of Donahue et al. 2017 (BiGAN, https://arxiv.org/abs/1605.09782), table 1. No label is seen in
training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.capabilities import Encoder
from zoo.data.base import DataModule, Which
from zoo.errors import ConfigError, DataError
from zoo.measurement import Measurement
from zoo.metrics.classification import share_of_right
from zoo.metrics.examples import Index, check_shapes, measuring


def code_accuracy(
    model: Encoder,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Measures the share of examples whose nearest training example has their label, in %.

    Distances are Euclidean distances of codes; a code is the mean of q(z | x).

    Args:
        model: The encoder.
        data: A data set with labels.
        split, index, batch_size, progress: As in `nll`.

    Raises:
        DataError: The shapes of model and data differ, or the data have no labels.
        ConfigError: The split is "train".
    """
    check_shapes(model, data)
    if split == "train":
        raise ConfigError("code_accuracy: expected split valid or test: training images are their own neighbours")
    known = data.split("train").labels
    if known is None or data.split(split).labels is None:
        raise DataError(f"{data.name}: expected labels in train and {split}, found none; codes are judged by them")

    def encode(x: Tensor) -> Tensor:
        return model.encode(x.to(model.device)).mean.flatten(1).double()  # distances of near codes cancel in float32

    with measuring(model):
        codes = torch.cat([encode(batch.x) for batch in data.batches("train", batch_size=batch_size)])
        labels = known.to(model.device)

        def is_right(batch: Batch) -> Tensor:
            assert batch.labels is not None
            return labels[torch.cdist(encode(batch.x), codes).argmin(1)].eq(batch.labels)

        return share_of_right(
            "code_accuracy",
            is_right,
            data,
            split,
            index=index,
            batch_size=batch_size,
            device=model.device,
            label=f"nearest codes of {data.name} {split}",
            progress=progress,
            num_reference=len(codes),
        )
