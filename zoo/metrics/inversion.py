"""How exactly a bijection comes back.

    inversion_error = max over examples and values of |x' - x|,    x' = from_latent(to_latent(x))

Mathematically it is zero. In the precision of the weights it is not: scales that multiply and divide again, far from
one, lose digits.
"""

from __future__ import annotations

from torch import Tensor

from zoo.batch import Batch
from zoo.capabilities import Bijection, Dequantized
from zoo.data.base import DataModule, Which
from zoo.measurement import Measurement
from zoo.metrics.examples import check_shapes, measuring, per_example
from zoo.random import Streams


def inversion_error(
    model: Bijection,
    data: DataModule,
    split: Which = "test",
    *,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Measures `inversion_error` on the examples of the seeded slice.

    Args:
        model: The model.
        data: The data set.
        split: Split of the data set.
        seed: Seed of the slice, and of the noise by which a `Dequantized` model dequantises the examples.
        batch_size: Number of examples that pass through the model at once.
        progress: Whether to show a progress bar.

    Returns:
        One number in units of the data, with the type of the model's numbers in its details as `precision`.

    Raises:
        DataError: The shapes of model and data differ.
    """
    check_shapes(model, data)

    def errors(batch: Batch) -> Tensor:
        x = batch.x
        if isinstance(model, Dequantized):
            x = model.dequantize(x, generator=Streams(seed, batch.index))
        return (model.from_latent(model.to_latent(x)[0]) - x).abs().flatten(1).amax(1)

    with measuring(model):
        found = per_example(
            errors,
            data,
            split,
            index="slice",
            seed=seed,
            cost=1,
            batch_size=batch_size,
            device=model.device,
            label=f"inversion_error on {data.name} {split}",
            progress=progress,
        )
    details = {"precision": str(model.dtype).removeprefix("torch.")}
    value = found.max().item()
    return [Measurement("inversion_error", value, None, "", "estimate", len(found), seed, split, data.name, details)]
