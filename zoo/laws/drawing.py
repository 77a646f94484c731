"""Laws of what draws: the shape and range of samples, and the noise that they depend on."""

from __future__ import annotations

import torch

from zoo.capabilities import Completable, GenerativeModel
from zoo.laws.law import hold, law, same, seeded
from zoo.laws.subject import Subject


@law("Samples have the shape and the values of the data", GenerativeModel)
def samples_look_like_data(subject: Subject) -> str:
    model = subject.build()
    x = model.sample(9, generator=seeded())
    hold(x.shape == (9, *subject.event_shape), f"nine samples have shape {list(x.shape)}")
    hold(x.dtype == torch.float32, f"samples are {x.dtype}")
    hold(not x.requires_grad, "samples carry a gradient")
    hold(x.isfinite().all(), "samples are NaN or infinite")
    hold(len(x.unique(dim=0)) > 1, "all samples are the same")
    low, high = x.min(), x.max()
    if subject.levels is not None:
        hold(low >= 0 and high <= 1, f"samples have values from {low:.4g} to {high:.4g}")
    if subject.levels == 2:
        hold(((x == 0) | (x == 1)).all(), "samples have values besides 0 and 1")
    hold(model.sample(0).shape == (0, *subject.event_shape), "no samples have another shape than many")
    return f"values from {low:.3g} to {high:.3g}"


@law("Samples depend on the generator alone", GenerativeModel)
def samples_depend_on_the_generator_alone(subject: Subject) -> str:
    model = subject.build()
    before = torch.get_rng_state()
    x = model.sample(7, generator=seeded())
    hold(torch.equal(model.sample(7, generator=seeded()), x), "the same seed draws other samples")
    largest = 0.0
    for batch_size in (1, 3):
        again = model.sample(7, generator=seeded(), batch_size=batch_size)
        largest = max(largest, same(again, x, f"samples in batches of {batch_size} and of 7", rtol=1.3e-6))
    largest = max(largest, same(model.sample(3, generator=seeded()), x[:3], "three samples and the first of seven"))
    hold(torch.equal(torch.get_rng_state(), before), "sampling with a generator moves torch's global one")
    generator = seeded()
    first, second = (model.sample(7, generator=generator) for _ in range(2))
    hold(torch.equal(first, x) and not torch.equal(first, second), "a generator draws the same samples twice")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = model.sample(7), model.sample(7)
        torch.manual_seed(3)
        hold(torch.equal(model.sample(7), first), "samples without a generator do not depend on torch.manual_seed")
        hold(not torch.equal(first, second), "samples without a generator are always the same")
    return f"largest difference {largest:.2g}"


@law("Completions depend on the generator alone and keep what is known", Completable)
def completions_keep_what_is_known(subject: Subject) -> str:
    model, x = subject.build(), subject.data(40)
    size = x[0].numel()
    masks = (torch.arange(size) < torch.tensor([0, 1, 3, size] * 10)[:, None]).view_as(x)
    first, again, other = (model.complete(x, masks, generator=seeded(s)) for s in (0, 0, 1))
    hold(torch.equal(first, again), "the same seed completes otherwise")
    hold(not torch.equal(first, other), "another seed completes likewise")
    hold(torch.equal(first[masks], x[masks]), "known pixels change")
    hold(torch.equal(first[3::4], x[3::4]), "images that are known change")
    return f"{len(x)} images"
