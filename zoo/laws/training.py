"""Laws of every model: its arguments, its gradients, its codes, and that examples do not see each other."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from zoo.capabilities import Adversarial, Bijection, Classifier, ClosedForm, Decoder, Denoiser, Encoder, ZooModule
from zoo.diffusion.denoiser import DiffusionModel
from zoo.laws.law import LIMIT, hold, law, same, seeded
from zoo.laws.subject import Subject
from zoo.samplers import Heun


def output(model: Any, subject: Subject) -> Tensor:
    """What a model does with a seed: samples, or the logits of a classifier."""
    with torch.no_grad():
        found = model(subject.data(3)) if isinstance(model, Classifier) else model.sample(3, generator=seeded())
    return cast(Tensor, found)


@law("Its arguments are JSON-plain and rebuild it", ZooModule)
def arguments_rebuild_the_model(subject: Subject) -> str:
    """`hparams` holds the arguments of the constructor, which calls `save_hyperparameters`."""
    model = subject.build()
    arguments = dict(model.hparams)
    expected = inspect.signature(subject.cls).parameters.keys()
    hold(
        arguments.keys() == expected,
        f"hparams has {sorted(arguments)}, and the constructor takes {sorted(expected)}; call save_hyperparameters()",
    )
    try:
        plain = json.loads(json.dumps(arguments, allow_nan=False))
    except (TypeError, ValueError) as error:
        plain = str(error)
    hold(plain == arguments, f"the arguments do not survive JSON: {plain}")
    twin = subject.cls(**arguments)
    shapes = [{name: (value.shape, value.dtype) for name, value in m.state_dict().items()} for m in (model, twin)]
    hold(shapes[0] == shapes[1], "a model of the same arguments has other weights")
    twin.load_state_dict(model.state_dict())
    hold(
        torch.equal(output(model, subject), output(twin.eval(), subject)),
        "a model of the same arguments and weights computes something else; is a tensor not registered as a buffer?",
    )
    return f"{len(arguments)} arguments, {len(shapes[0])} tensors"


def _why_no_gradient(subject: Subject) -> str:
    return "it is fitted in closed form" if issubclass(subject.cls, ClosedForm) else ""


@law("Every parameter gets a gradient", ZooModule, exempt=_why_no_gradient)
def every_parameter_gets_a_gradient(subject: Subject) -> str:
    model, batch = subject.build().train(), subject.batch()
    if isinstance(model, Adversarial):
        streams, given = model.streams(batch), model.given(batch)
        real, fake = model.pair(batch.x, streams, **given)
        model.generator_loss(real, fake, streams, **given).backward()
        model.critic.zero_grad()
        model.critic_loss(real.detach(), fake.detach(), streams, **given)["loss"].backward()
    else:
        model.training_step(batch, 0)["loss"].backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    without = [n for n, grad in trained.items() if grad is None or not grad.any() or not grad.isfinite().all()]
    hold(not without, f"{len(without)} of {len(trained)} parameters get none: {', '.join(without[:5])}")
    return f"{len(trained)} parameters"


@law("Each player trains its own network", Adversarial)
def each_player_trains_its_own_network(subject: Subject) -> str:
    model, batch = subject.build(), subject.batch()
    streams, given = model.streams(batch), model.given(batch)
    real, fake = model.pair(batch.x, streams, **given)
    hold(fake.requires_grad, "the fakes carry no gradient")
    model.critic_loss(real.detach(), fake.detach(), streams, **given)["loss"].backward()
    moved = [name for name, parameter in model.generator.named_parameters() if parameter.grad is not None]
    hold(not moved, f"the loss of the critic has gradients in the generator: {', '.join(moved[:5])}")
    owned = {id(p) for part in (model.generator, model.critic) for p in part.parameters()}
    others = [name for name, parameter in model.named_parameters() if id(parameter) not in owned]
    hold(not others, f"no player trains {', '.join(others[:5])}")
    return f"{len(owned)} parameters"


@law("An image is labelled alone", Classifier)
def images_are_labelled_alone(subject: Subject) -> str:
    model, batch = subject.build(), subject.batch()
    features, logits = model.features(batch.x), model(batch.x)
    hold(
        features.shape == (6, model.num_features) and logits.shape == (6, model.num_classes),
        f"six images have features of shape {list(features.shape)} and logits of shape {list(logits.shape)}",
    )
    difference = same(model(batch.x[2:3])[0], logits[2], "logits of an image alone and among others")
    return f"largest difference {difference:.2g}"


@law("A code depends on its own example alone", Encoder)
def codes_keep_to_their_own_example(subject: Subject) -> str:
    model, x, given = subject.build().double(), subject.data(4).double(), subject.given(4)
    posterior = model.encode(x, **given)
    hold(
        posterior.batch_shape == (4,) and posterior.event_shape == tuple(model.latent_shape),
        f"four examples have batch shape {list(posterior.batch_shape)} and event shape {list(posterior.event_shape)}",
    )
    hold(len(posterior.mean.unique(dim=0)) == 4, "different examples have the same code")
    alone = model.encode(x[1:2], **{name: value[1:2] for name, value in given.items()})
    difference = same(
        alone.mean[0], posterior.mean[1], "codes of an example alone and among others", atol=1e-7, rtol=1e-7
    )
    return f"largest difference {difference:.2g}"


@law("Samples are decoded from the prior", Decoder)
def samples_are_decoded_from_the_prior(subject: Subject) -> str:
    """E[x] of samples is E[decode(z)] of codes from the prior."""
    model, num, given = subject.build(), 4000, subject.given(4000)
    prior = model.prior()
    hold(
        prior.batch_shape == () and prior.event_shape == tuple(model.latent_shape),
        f"the prior has batch shape {list(prior.batch_shape)} and event shape {list(prior.event_shape)}",
    )
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        decoded = model.decode(model.prior().sample((num,)), **given)
    hold(decoded.shape == (num, *subject.event_shape), f"{num} codes are decoded to shape {list(decoded.shape)}")
    if subject.levels is not None:
        low, high = decoded.min(), decoded.max()
        hold(low >= 0 and high <= 1, f"decoded images have values from {low:.4g} to {high:.4g}")
    how: dict[str, Any] = dict(given)
    if isinstance(model, DiffusionModel):  # its codes are those of one of its samplers
        how["sampler"] = Heun(model.code_steps)
    drawn = model.sample(num, generator=seeded(), batch_size=num, **how)
    z = (drawn.mean(0) - decoded.mean(0)) / ((drawn.var(0) + decoded.var(0)) / num).sqrt()
    largest = float(z.abs().max())
    hold(largest < LIMIT, f"the mean of samples is {largest:.1f} standard errors from that of decoded codes")
    hold((decoded.std(0) > 0.02).any(), "the code changes nothing")
    return f"largest z-score of the mean {largest:.1f}"


@law("Codes lead back to the data, with the Jacobian of the map", Bijection)
def codes_are_a_change_of_variables(subject: Subject) -> str:
    model, x = subject.build().double(), subject.data(3)
    x = x.double() if subject.levels is None else model.dequantize(x, generator=seeded()).double()
    return f"largest error {invert(model.to_latent, model.from_latent, x):.2g}"


def invert(forward: Callable[[Tensor], tuple[Tensor, Tensor]], inverse: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The largest error of an inverse at x [B, ...], whose log |det| must be that of autograd."""
    z, ladj = forward(x)
    hold(ladj.shape == (len(x),), f"log |det| of {len(x)} examples has shape {list(ladj.shape)}")
    error = same(inverse(z), x, "data and what their codes lead back to", atol=1e-8, rtol=1e-8)
    for i, row in enumerate(x):
        jacobian = torch.autograd.functional.jacobian(lambda v: forward(v[None])[0][0].flatten(), row)
        expected = jacobian.flatten(1).slogdet().logabsdet
        same(ladj[i], expected, "log |det dz/dx| and that of autograd", atol=1e-8, rtol=1e-8)
    return error


@law("Noise is removed from each example alone", Denoiser)
def denoising_keeps_to_its_own_example(subject: Subject) -> str:
    model, x, given = subject.build(), subject.data(4), subject.given(4)
    sigma = torch.tensor([0.1, 0.3, 1.0, 2.0]).clamp(model.sigma_min, model.sigma_max)
    with torch.no_grad():
        y = model.to_state(x)
        together = model.denoise(y, sigma, **given)
        rows = [{name: value[i : i + 1] for name, value in given.items()} for i in range(4)]
        apart = [model.denoise(y[i : i + 1], sigma[i : i + 1], **rows[i]) for i in range(4)]
    what = "denoised examples alone and among others"
    return f"largest difference {same(torch.cat(apart), together, what, atol=1e-4, rtol=1e-4):.2g}"
