"""What users of PyTorch and Lightning expect of every model: checks, loops of their own, Trainers, pickle, compile."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from instances import INSTANCES, Instance, having
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, TensorDataset

from zoo import Zoo
from zoo.batch import Batch
from zoo.capabilities import (
    Adversarial,
    Classifier,
    ClosedForm,
    Conditional,
    Dequantized,
    Encoder,
    EvidenceLowerBound,
    GenerativeModel,
    ImportanceWeighted,
    Reconstructive,
    TractableDensity,
    UnnormalizedDensity,
    ZooModule,
)
from zoo.checks import check_values, unchecked
from zoo.data import Arrays
from zoo.density.rivers import Rivers
from zoo.errors import ConfigError, DataError
from zoo.flows.flow import Flow
from zoo.laws.law import seeded
from zoo.training import Trainer

LOSS_ALONE = (Adversarial, ClosedForm, UnnormalizedDensity)
"""Models whose `training_step` does more than to give a loss."""


def methods(model: Any) -> dict[str, Callable[..., Any]]:
    """What a model computes of data, by name."""
    names = {
        TractableDensity: ["log_prob"],
        EvidenceLowerBound: ["elbo"],
        UnnormalizedDensity: ["energy"],
        Encoder: ["encode"],
        Reconstructive: ["squared_error"],
        Classifier: ["forward", "features_and_logits"],
    }
    return {name: getattr(model, name) for kind in names for name in names[kind] if isinstance(model, kind)}


def value(found: Any) -> Tensor:
    """The tensor in what such a method returns."""
    found = found[0] if isinstance(found, tuple) else found
    return found if isinstance(found, Tensor) else found.mean


# -------------------------------------------------------------------------------------------------------------- checks


@having(ZooModule)
def test_data_of_another_shape_are_refused_and_named(instance: Instance) -> None:
    model, given = instance.build(), instance.given(3)
    wrong = [torch.zeros(3, *instance.event_shape, 1), torch.zeros(3, *(n + 1 for n in instance.event_shape))]
    for name, compute in methods(model).items():
        for x in (*wrong, torch.zeros(instance.event_shape), instance.data(3).numpy()):
            with pytest.raises(
                DataError,
                match=rf"^{type(model).__name__}.{name}: expected (images|examples|a tensor)",
            ):
                compute(x, **given)


@having(ZooModule, where=lambda instance: instance.levels is not None)
def test_data_of_other_values_are_refused_once_per_call(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(3), instance.given(3)
    wrong = [x * 255, x * 0 - 0.1, x.clone().flatten().index_fill(0, torch.tensor(2), torch.nan).view_as(x)]
    if instance.levels == 2:
        wrong += [x * 0.999, torch.rand(x.shape)]
    for name, compute in methods(model).items():
        is_real = isinstance(model, Dequantized | Rivers) and name == "log_prob"
        for bad in wrong:
            if is_real:
                compute(bad, **given)
                continue
            with pytest.raises(DataError, match=rf"^{type(model).__name__}.{name}: expected (binary )?pixels"):
                compute(bad, **given)
        with unchecked():
            compute(wrong[1], **given)
        with torch.no_grad():
            assert torch.equal(value(compute(x.double().float(), **given)), value(compute(x, **given))) or isinstance(
                model, EvidenceLowerBound
            )


@having(ImportanceWeighted)
def test_importance_weights_check_their_data(instance: Instance) -> None:
    model, given = instance.build(), instance.given(3)
    with pytest.raises(DataError, match=r"\.log_weights: expected (binary )?pixels"):
        model.log_weights(instance.data(3) * 255, 2, **given)


def test_checks_are_out_of_the_way_of_vmap_and_of_whole_numbers() -> None:
    instance = next(i for i in INSTANCES if i.cls.__name__ == "FVSBN")
    model, x = instance.build(), instance.data(5)
    expected = model.log_prob(x)
    torch.testing.assert_close(torch.func.vmap(lambda one: model.log_prob(one[None])[0])(x), expected)
    for kind in (torch.bool, torch.uint8, torch.int64):
        assert torch.equal(model.log_prob(x.to(kind)), expected)


class Reads(TorchDispatchMode):
    """Counts the numbers that operations read, and the largest number of values that one of them writes."""

    def __init__(self) -> None:
        super().__init__()
        self.read = self.largest_written = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not any(returned.alias_info for returned in function._schema.returns):  # views read nothing
            self.read += sum(value.numel() for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor))
            written = [value.numel() for value in tree_leaves(result) if isinstance(value, Tensor)]
            self.largest_written = max(self.largest_written, *written, 0)
        return result


@pytest.mark.parametrize("levels", [2, 256])
def test_checks_read_good_pixels_three_times_at_most_and_copy_none(levels: int) -> None:
    """A density multiplies each pixel by hundreds of weights: the cost of the checks disappears beside it."""
    x = torch.rand(100, 1, 28, 28, generator=seeded()).round()
    with Reads() as reads:
        check_values(SimpleNamespace(event_shape=(1, 28, 28), levels=levels), x, "")
    assert x.numel() <= reads.read <= 3 * x.numel() + 10
    assert reads.largest_written < 10


# --------------------------------------------------------------------------------------------- loops and other Trainers


def losses_of_a_loop(model: Any, step: Callable[[int], Any], num: int = 3) -> list[float]:
    """The loss of the same batch, with the same weights, at each step of a loop."""
    return [float(step(number)["loss"].detach()) for number in range(num)]


def draws_in_training(instance: Instance) -> bool:
    """Whether the loss of a step depends on noise: bounds, denoisers, dequantised data, shifts, dropout."""
    arguments = instance.arguments
    if issubclass(instance.cls, Adversarial | ClosedForm | UnnormalizedDensity):
        return False
    is_noisy = issubclass(instance.cls, EvidenceLowerBound) or hasattr(instance.cls, "denoise")
    is_dequantized = issubclass(instance.cls, Dequantized) and instance.levels is not None
    return is_noisy or is_dequantized or any(arguments.get(name) for name in ("dropout", "max_shift"))


@having(ZooModule, where=draws_in_training)
def test_a_bare_loop_has_new_noise_at_each_step(instance: Instance) -> None:
    model, batch = instance.build().train(), instance.batch()
    losses = losses_of_a_loop(model, lambda _: model.training_step(batch, 0), 5)
    assert len(set(losses)) > 1 and model.global_step == 5
    again = instance.build().train()
    assert losses_of_a_loop(again, lambda _: again.training_step(batch, 0), 5) == losses
    plain = (batch.x, batch.labels) if issubclass(instance.cls, Conditional | Classifier) else batch.x
    assert len(set(losses_of_a_loop(model, lambda number: model.training_step(plain, number), 5))) > 1
    assert torch.equal(*(next(iter(model.validation_step(batch, 0).values())) for _ in range(2)))


def vae() -> tuple[Any, Batch]:
    instance = next(i for i in INSTANCES if i.cls.__name__ == "VAE")
    return instance.build().train(), instance.batch(8)


def test_fabric_has_new_noise_at_each_step() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    model, batch = vae()
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.0))
    wrapped.mark_forward_method("training_step")
    losses = []
    for number in range(3):
        loss = wrapped.training_step(batch, number)["loss"]
        fabric.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert len(set(losses)) == 3 and model.global_step == 3


class Parent(lightning.LightningModule):
    """A user's own module with a model of the zoo as a part."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.part = model
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = [self.part.training_step(batch, batch_idx)["loss"] for _ in range(2)]
        self.losses += [float(loss) for loss in losses]
        return sum(losses) / 2

    def configure_optimizers(self) -> Any:
        return self.part.configure_optimizers()


def quiet(**options: Any) -> dict[str, Any]:
    """Options of a Lightning Trainer that writes nothing."""
    common = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    return {**common, "enable_checkpointing": False, "enable_model_summary": False, **options}


def loader(batch: Batch, *, labels: bool = False, batch_size: int = 4) -> DataLoader[Any]:
    tensors = [batch.x, batch.labels] if labels and batch.labels is not None else [batch.x]
    return DataLoader(TensorDataset(*tensors), batch_size=batch_size)


@pytest.mark.filterwarnings("ignore")
def test_a_part_of_another_module_has_new_noise_at_each_step() -> None:
    model, batch = vae()
    parent = Parent(model)
    lightning.Trainer(**quiet(max_epochs=2)).fit(parent, loader(batch))
    assert len(parent.losses) == len(set(parent.losses)) == 8 and model.global_step == 8


@having(ZooModule)
@pytest.mark.filterwarnings("ignore")
def test_a_trainer_of_lightning_takes_plain_batches(instance: Instance, tmp_path: Path) -> None:
    """`fit`, `validate`, `test` and `predict` on a loader of (x, labels), by lightning.Trainer and by the zoo's."""
    batch = Batch(instance.data(24), torch.arange(24) % instance.arguments.get("num_classes", 2), torch.arange(24))
    data = loader(batch, labels=True, batch_size=12)
    for trainer in (
        lightning.Trainer(**quiet(max_epochs=1)),
        Trainer(tmp_path, progress=False, sample_grids=False, accelerator="cpu", max_epochs=1),
    ):
        model: Any = instance.cls(**instance.arguments)
        trainer.fit(model, data, data)
        found = {name.removeprefix("valid/"): v for name, v in trainer.callback_metrics.items() if "valid/" in name}
        assert trainer.global_step == 2 and all(value.isfinite() for value in found.values())
        (tested,) = trainer.test(model, data, verbose=False) or [{}]
        assert tested.keys() == {f"test/{name}" for name in found}
        for name, value in found.items():
            assert tested[f"test/{name}"] == pytest.approx(float(value), rel=1e-3, abs=1e-3)
        predicted = trainer.predict(model, data)
        if isinstance(model, Classifier):
            wrong = torch.cat(predicted).argmax(1) != batch.labels
            assert float(wrong.float().mean()) == pytest.approx(float(found["error_rate"]))
            continue
        for name, value in found.items():
            each = torch.cat([part[name] for part in predicted])
            assert len(each) == 24 and float(each.mean()) == pytest.approx(float(value), rel=1e-3, abs=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_what_lightning_logs_and_clips() -> None:
    model, batch = vae()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.optimization = model.optimization.__class__(optimizer="sgd", lr=1.0, beta1=0.0)
    trainer = lightning.Trainer(**quiet(max_steps=1, gradient_clip_val=1e-3))
    trainer.fit(model, loader(batch, batch_size=8))
    moved = torch.cat([(p - before[name]).flatten() for name, p in model.named_parameters()])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)
    assert trainer.callback_metrics["train/loss"] > 0


@having(GenerativeModel, where=lambda instance: issubclass(instance.cls, Adversarial | ClosedForm))
def test_models_that_set_their_own_weights_want_a_trainer(instance: Instance) -> None:
    with pytest.raises(ConfigError, match="expected a Trainer that drives it"):
        instance.build().training_step(instance.batch(), 0)


@pytest.mark.parametrize("wrong", [{"x": torch.zeros(2)}, "x", torch.tensor(1.0), (None, torch.zeros(2))])
def test_batches_that_cannot_be_learned_from(wrong: Any) -> None:
    model, _ = vae()
    with pytest.raises(DataError, match=r"^expected batches of a tensor x or of \(x, labels\), found "):
        model.training_step(wrong, 0)


@pytest.mark.filterwarnings("ignore")
def test_values_of_another_kind_are_refused_when_fitting_starts() -> None:
    model, batch = vae()
    grey, small = batch.x * 0.5, batch.x[..., :2]
    for data, message in (
        ({"train_dataloaders": loader(batch._replace(x=grey))}, "training VAE: expected binary pixels, 0 or 1, found"),
        ({"train_dataloaders": loader(batch._replace(x=small))}, "training VAE: expected images of shape"),
        ({"datamodule": Arrays.from_array(grey)}, "expected binary pixels"),
    ):
        with pytest.raises(DataError, match=message):
            lightning.Trainer(**quiet(max_epochs=1)).fit(model, **data)
    trainer = lightning.Trainer(**quiet())
    for run in (trainer.validate, trainer.test, trainer.predict):
        with pytest.raises(DataError, match=r"^VAE: expected binary pixels, 0 or 1, found"):
            run(model, loader(batch._replace(x=grey)))


def test_binary_pixels_may_be_bytes() -> None:
    model, batch = vae()
    x = batch.x.byte()
    check_values(model, x, "here")
    for wrong in (2 * x, x - 1, batch.x - 1, batch.x * float("nan")):  # the second has values of 255
        with pytest.raises(DataError, match="here: expected binary pixels, 0 or 1, found"):
            check_values(model, wrong, "here")


def test_learning_rates_outside_of_a_trainer() -> None:
    model, _ = vae()
    assert isinstance(model.configure_optimizers()["optimizer"], torch.optim.Adam)


# ----------------------------------------------------------------------------------------------------- pickle, compile


def output(model: Any, instance: Instance) -> Tensor:
    with torch.no_grad():
        return model(instance.data(3)) if isinstance(model, Classifier) else model.sample(3, generator=seeded())


@having(ZooModule)
def test_pickled_models_do_the_same(instance: Instance) -> None:
    model = instance.build()
    before = torch.get_rng_state()
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(torch.get_rng_state(), before)
    assert twin.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(twin.state_dict()[key], value) for key, value in model.state_dict().items())
    assert torch.equal(output(twin, instance), output(model, instance))
    if isinstance(model, Adversarial):
        batch = instance.batch()
        losses = []
        for player in (model.train(), twin.train()):
            streams, given = player.streams(batch), player.given(batch)
            real, fake = player.pair(batch.x, streams, **given)
            losses.append(player.critic_loss(real, fake, streams, **given)["loss"])
        assert torch.equal(*losses)


@having(ZooModule)
def test_compiled_parts_are_saved_under_their_own_names(instance: Instance, tmp_path: Path) -> None:
    model = instance.build()
    expected = output(model, instance)
    for name, part in list(model.named_children()):
        if not isinstance(part, nn.ParameterDict):
            setattr(model, name, torch.compile(part, backend="eager"))
    Zoo.save(model, tmp_path / "model")
    loaded = Zoo.load(f"local-dir:{tmp_path / 'model'}")
    assert not any("_orig_mod" in key for key in loaded.state_dict())
    torch.testing.assert_close(output(loaded, instance), expected, atol=0, rtol=0)


def test_compiled_models_are_saved_and_densities_compile_as_one_graph(tmp_path: Path) -> None:
    model, _ = vae()
    Zoo.save(torch.compile(model, backend="eager"), tmp_path / "model")  # type: ignore[arg-type]
    loaded: Any = Zoo.load(f"local-dir:{tmp_path / 'model'}")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    instance = next(i for i in INSTANCES if i.cls.__name__ == "FVSBN")
    density, x = instance.build(), instance.data(5)
    compiled = torch.compile(density.log_prob, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), density.log_prob(x))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("MADE", "log_prob"),
        ("RealNVP", "log_prob"),
        ("RBM", "energy"),
        ("VAE", "decode"),
        ("DCGAN", "decode"),
        ("GatedPixelCNN", "log_prob"),
        ("LeNet", "features_and_logits"),
    ],
)
def test_methods_compile(name: str, method: str) -> None:
    instance = next(i for i in INSTANCES if i.cls.__name__ == name)
    model = instance.build()
    x = torch.randn(5, *model.latent_shape, generator=seeded()) if method == "decode" else instance.data(5)
    with torch.no_grad():
        compiled = torch.compile(getattr(model, method), backend="eager", fullgraph=True)
        torch.testing.assert_close(value(compiled(x)), value(getattr(model, method)(x)))


# ------------------------------------------------------------------------------------------- outside of the range


def has_logit(instance: Instance) -> bool:
    arguments = inspect.signature(instance.cls).bind(**instance.arguments)
    arguments.apply_defaults()
    return arguments.arguments.get("logit") is not None


@having(Flow, where=has_logit)
def test_a_density_of_logits_is_zero_beyond_their_range(instance: Instance) -> None:
    model, x = instance.build(), instance.data(4)
    inside = model.log_prob(x)
    for position, beyond in ((0, -1.0), (1, 2.0), (2, 255.0)):
        y = x.clone()
        y[position].view(-1)[0] = beyond
        found = model.log_prob(y)
        assert found[position] == -torch.inf
        rest = torch.arange(4) != position
        torch.testing.assert_close(found[rest], inside[rest])
    x[0].view(-1)[0] = torch.nan
    assert model.log_prob(x)[0].isnan()
