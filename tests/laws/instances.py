"""The tiny instances that the mathematics is tested on: one line per model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import zoo
from zoo.autoregressive.color_pixelcnn import ColorPixelCNN
from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.fvsbn import FVSBN
from zoo.autoregressive.gated_pixelcnn import ConditionalGatedPixelCNN, GatedPixelCNN
from zoo.autoregressive.made import MADE
from zoo.autoregressive.nade import NADE
from zoo.autoregressive.pixelcnn import PixelCNN
from zoo.autoregressive.pixelrnn import PixelRNN
from zoo.autoregressive.raster import RasterOrder
from zoo.autoregressive.rnn import RNN
from zoo.boltzmann.boltzmann_machine import BoltzmannMachine
from zoo.boltzmann.dbm import DBM
from zoo.boltzmann.dbn import DBN
from zoo.boltzmann.rbm import RBM
from zoo.classifier.lenet import LeNet
from zoo.classifier.resnet import ResNet
from zoo.density.causal_gaussian import CausalGaussian
from zoo.density.gaussian import Gaussian
from zoo.density.gaussian_mixture import GaussianMixture
from zoo.density.memoriser import Memoriser
from zoo.density.mixture import BernoulliMixture
from zoo.density.rivers import Rivers
from zoo.diffusion.consistency import ConsistencyModel
from zoo.diffusion.ddpm import DDPM
from zoo.diffusion.edm import EDM, ConditionalEDM
from zoo.diffusion.flow_matching import FlowMatching
from zoo.energy.binary_ebm import BinaryEBM
from zoo.energy.ebm import EBM
from zoo.energy.nce import NCE
from zoo.flows import iaf
from zoo.flows.glow import Glow
from zoo.flows.maf import MAF
from zoo.flows.nice import NICE
from zoo.flows.planar import PlanarFlow
from zoo.flows.realnvp import RealNVP
from zoo.flows.spline import SplineFlow
from zoo.gan.ali import ALI
from zoo.gan.conditional_gan import ConditionalGAN
from zoo.gan.dcgan import DCGAN
from zoo.gan.gan import GAN
from zoo.gan.r3gan import R3GAN
from zoo.gan.sngan import SNGAN
from zoo.gan.wgan import WGAN
from zoo.gan.wgan_gp import WGANGP
from zoo.laws.subject import Subject
from zoo.vae.autoencoder import Autoencoder
from zoo.vae.conditional_vae import ConditionalVAE
from zoo.vae.iaf import IAF
from zoo.vae.iwae import IWAE
from zoo.vae.ladder_vae import LadderVAE
from zoo.vae.planar_vae import PlanarVAE
from zoo.vae.semi_supervised_vae import SemiSupervisedVAE
from zoo.vae.vae import VAE

GAUSSIAN, LOGISTIC = "discretized-gaussian", "discretized-logistic"
Logits = Callable[[Any, Tensor], list[Tensor]]


@dataclass(frozen=True)
class Instance(Subject):
    """A model under test.

    Attributes:
        logits: Of an autoregressive model, (model, x [B, *event_shape]) -> [B, D]: what it says of each pixel given the
            earlier ones, for each component of a mixture.
        conditional: Whether it completes by the conditional of its own density, whatever the mask.
    """

    logits: Logits | None = None
    conditional: bool = True


def _each_mask(model: MADE, x: Tensor) -> list[Tensor]:
    return [model.logits(x, k) for k in range(model.num_masks)]


def _one_pass(model: RasterOrder, x: Tensor) -> list[Tensor]:
    return [model.logits(x)]


def _odds(model: ColorPixelCNN, x: Tensor) -> list[Tensor]:
    return [model.logits(x).diff(dim=2).flatten(1)]


INSTANCES = [
    Instance(MADE, {"event_shape": [1, 2, 4], "hidden": 16, "num_masks": 3}, 2, _each_mask),
    Instance(MADE, {"event_shape": [2, 1, 2], "hidden": 5, "num_masks": 1, "mask_seed": 4}, 2, _each_mask),
    Instance(
        MADE,
        {"event_shape": [1, 3, 3], "hidden": 9, "num_masks": 2, "spread": 1, "max_shift": 1, "dropout": 0.2},
        2,
        _each_mask,
    ),
    Instance(FVSBN, {"event_shape": [1, 3, 3], "prior": 1e-5}, 2, _one_pass),
    Instance(NADE, {"event_shape": [1, 3, 3], "hidden": 6, "dropout": 0.2, "max_shift": 1}, 2, _one_pass),
    Instance(NADE, {"event_shape": [1, 2, 2], "hidden": 4}, 2, _one_pass),
    Instance(EoNADE, {"event_shape": [1, 2, 3], "hidden": 8, "num_orderings": 4}, 2, conditional=False),
    Instance(EoNADE, {"event_shape": [1, 2, 3], "hidden": 8, "num_steps": 3, "max_shift": 1}, 2, conditional=False),
    Instance(GatedPixelCNN, {"event_shape": [1, 3, 3], "channels": 4, "num_layers": 2, "hidden": 5}, 2, _one_pass),
    Instance(
        GatedPixelCNN,
        {
            "event_shape": [1, 2, 5],
            "channels": 2,
            "num_layers": 2,
            "kernel": 5,
            "first_kernel": 7,
            "max_shift": 1,
            "dropout": 0.3,
        },
        2,
        _one_pass,
    ),
    Instance(
        GatedPixelCNN,
        {"event_shape": [1, 2, 2], "channels": 3, "num_layers": 2, "kernel": 1, "first_kernel": 3},
        2,
        _one_pass,
    ),
    Instance(
        ConditionalGatedPixelCNN,
        {"num_classes": 3, "event_shape": [1, 3, 3], "channels": 3, "num_layers": 2, "hidden": 5, "max_shift": 1},
        2,
    ),
    Instance(PixelCNN, {"event_shape": [1, 3, 3], "channels": 6, "num_layers": 2, "hidden": 9}, 2, _one_pass),
    Instance(
        PixelCNN,
        {"event_shape": [1, 2, 4], "channels": 5, "num_layers": 1, "kernel": 5, "max_shift": 1, "dropout": 0.3},
        2,
        _one_pass,
    ),
    Instance(PixelRNN, {"event_shape": [1, 3, 3], "channels": 4, "num_layers": 2, "hidden": 8}, 2, _one_pass),
    Instance(
        PixelRNN,
        {"event_shape": [1, 2, 4], "layer": "row-lstm", "channels": 4, "num_layers": 1, "max_shift": 1, "dropout": 0.3},
        2,
        _one_pass,
    ),
    Instance(
        PixelRNN,
        {"event_shape": [1, 3, 3], "layer": "diagonal-bilstm", "channels": 4, "num_layers": 2, "max_shift": 1},
        2,
        _one_pass,
    ),
    Instance(
        PixelRNN,
        {"event_shape": [1, 4, 2], "layer": "diagonal-bilstm", "channels": 4, "num_layers": 1, "first_kernel": 3},
        2,
        _one_pass,
    ),
    Instance(
        RNN, {"event_shape": [1, 3, 3], "hidden": 5, "num_layers": 2, "max_shift": 1, "dropout": 0.3}, 2, _one_pass
    ),
    Instance(RNN, {"event_shape": [1, 2, 3], "hidden": 4, "window": 4, "forcing": "scheduled"}, 2, _one_pass),
    Instance(
        RNN,
        {"event_shape": [2, 2, 2], "hidden": 4, "num_layers": 1, "forcing": "professor", "dropout": 0.1},
        2,
        _one_pass,
    ),
    Instance(
        ColorPixelCNN,
        {"event_shape": [1, 3, 3], "levels": 2, "channels": 4, "num_layers": 2, "hidden": 5, "dropout": 0.2},
        2,
        _odds,
    ),
    Instance(
        ColorPixelCNN,
        {
            "event_shape": [1, 2, 2],
            "levels": 2,
            "channels": 4,
            "num_layers": 2,
            "kernel": 1,
            "hidden": 6,
            "embedding": 3,
        },
        2,
        _odds,
    ),
    Instance(
        ColorPixelCNN,
        {"event_shape": [1, 3, 3], "levels": 2, "channels": 4, "num_layers": 2, "hidden": 5, "num_logistics": 3},
        2,
        _odds,
    ),
    Instance(
        ColorPixelCNN,
        {
            "event_shape": [1, 3, 2],
            "levels": 2,
            "channels": 4,
            "num_layers": 1,
            "hidden": 5,
            "num_logistics": 2,
            "linear": True,
            "first_kernel": 3,
        },
        2,
    ),
    Instance(BoltzmannMachine, {"event_shape": [1, 2, 3]}, 2),
    Instance(BoltzmannMachine, {"event_shape": [1, 2, 2], "num_hidden": 2, "temperature": 0.7}, 2),
    Instance(RBM, {"event_shape": [1, 2, 3], "num_hidden": 4, "num_chains": 8}, 2),
    Instance(RBM, {"event_shape": [2, 2, 1], "num_hidden": 6, "cd_steps": 2, "num_chains": 0}, 2),
    Instance(DBN, {"event_shape": [1, 2, 2], "num_hidden": 3, "num_top": 4, "num_chains": 8}, 2),
    Instance(DBN, {"event_shape": [1, 1, 3], "num_hidden": 4, "num_top": 2, "num_chains": 0}, 2),
    Instance(DBM, {"event_shape": [1, 2, 2], "num_hidden": 3, "num_top": 2, "num_chains": 8}, 2),
    Instance(DBM, {"event_shape": [1, 1, 3], "num_hidden": 3, "num_top": 2, "cd_steps": 2, "num_chains": 0}, 2),
    Instance(
        BinaryEBM,
        {"event_shape": [1, 2, 3], "num_hidden": 3, "channels": 3, "hidden": 4, "num_chains": 8, "burn_in": 2},
        2,
    ),
    Instance(NCE, {"event_shape": [1, 2, 2], "noise": "nade", "noise_arguments": {"hidden": 3}, "channels": 3}, 2),
    Instance(NCE, {"event_shape": [2], "channels": 8, "num_noise": 3}, None),
    Instance(EBM, {"event_shape": [2], "hidden": 8, "num_chains": 8}, None),
    Instance(BernoulliMixture, {"event_shape": [2, 2, 2], "num_components": 3, "prior": 0.5}, 2),
    Instance(Rivers, {"event_shape": [1, 3, 4], "fork": 0.3}, 2, differentiable=False),
    Instance(Rivers, {"event_shape": [1, 5, 2]}, 2, differentiable=False),
    Instance(Memoriser, {"event_shape": [1, 3, 3], "memory": "Digits", "num_levels": 4}, 2),
    Instance(Gaussian, {"event_shape": [2]}, None),
    Instance(Gaussian, {"event_shape": [1, 2, 3], "levels": 256, "logit": 1e-4, "jitter": 0.1}, 256),
    Instance(CausalGaussian, {"event_shape": [3, 4, 3], "window": 1, "levels": 256}, 256),
    Instance(CausalGaussian, {"event_shape": [2, 1, 1]}, None),
    Instance(GaussianMixture, {"event_shape": [2], "num_components": 3}, None),
    Instance(RealNVP, {"event_shape": [2], "num_couplings": 4, "hidden": 8}, None),
    Instance(
        RealNVP,
        {"event_shape": [1, 4, 4], "num_couplings": 1, "hidden": 4, "num_scales": 2, "levels": 256, "logit": 1e-3},
        256,
    ),
    Instance(Glow, {"event_shape": [1, 4, 4], "num_steps": [2, 1], "hidden": [4, 3]}, 256),
    Instance(
        Glow,
        {"event_shape": [2, 2, 2], "num_steps": [2], "hidden": [4], "num_logistics": 3, "levels": 256, "logit": None},
        256,
    ),
    Instance(MAF, {"event_shape": [2], "num_layers": 2, "hidden": 8, "levels": None, "logit": None}, None),
    Instance(MAF, {"event_shape": [1, 2, 3], "num_layers": 2, "hidden": 8, "num_hidden": 1, "logit": 1e-3}, 256),
    Instance(iaf.IAF, {"event_shape": [2], "num_layers": 2, "hidden": 8}, None),
    Instance(NICE, {"event_shape": [2], "num_couplings": 2, "hidden": 8, "levels": None}, None),
    Instance(NICE, {"event_shape": [1, 2, 4], "num_couplings": 3, "hidden": 8, "dequantizer": 3}, 256),
    Instance(PlanarFlow, {"event_shape": [2], "num_maps": 4}, None),
    Instance(SplineFlow, {"event_shape": [2], "num_couplings": 2, "hidden": 8}, None),
    Instance(VAE, {"event_shape": [1, 4, 4], "latent_dim": 1, "channels": 4, "hidden": 8}, 2),
    Instance(VAE, {"event_shape": [2, 4, 8], "latent_dim": 2, "channels": 4, "hidden": 8, "likelihood": LOGISTIC}, 256),
    Instance(VAE, {"event_shape": [1, 4, 4], "latent_dim": 1, "channels": 4, "hidden": 8, "likelihood": GAUSSIAN}, 256),
    Instance(
        ConditionalVAE,
        {"num_classes": 3, "event_shape": [1, 4, 4], "latent_dim": 1, "channels": 4, "hidden": 7},
        2,
    ),
    Instance(
        SemiSupervisedVAE,
        {"num_classes": 3, "event_shape": [1, 4, 4], "latent_dim": 1, "channels": 4, "hidden": 7},
        2,
    ),
    Instance(IWAE, {"num_samples": 3, "event_shape": [1, 4, 4], "latent_dim": 2, "channels": 4, "hidden": 8}, 2),
    Instance(PlanarVAE, {"num_maps": 2, "event_shape": [1, 4, 4], "latent_dim": 2, "channels": 4, "hidden": 7}, 2),
    Instance(
        IAF, {"num_maps": 2, "width": 5, "event_shape": [1, 4, 4], "latent_dim": 2, "channels": 4, "hidden": 5}, 2
    ),
    Instance(LadderVAE, {"event_shape": [1, 4, 4], "top_dim": 1, "map_channels": [1], "channels": 3, "hidden": 8}, 2),
    Instance(Autoencoder, {"event_shape": [1, 8, 4], "latent_dim": 3, "channels": 4, "hidden": 8}, 256),
    Instance(GAN, {"event_shape": [1, 8, 12], "latent_dim": 3, "channels": 8, "penalty": 0.7}, 256),
    Instance(GAN, {"event_shape": [2, 4, 8], "latent_dim": 2, "channels": 8, "loss": "minimax", "penalty": 0.0}, 256),
    Instance(DCGAN, {"event_shape": [1, 8, 12], "latent_dim": 3, "channels": 8}, 256),
    Instance(
        DCGAN,
        {
            "event_shape": [1, 8, 4],
            "latent_dim": 2,
            "channels": 8,
            "instance_noise": 0.3,
            "gradient_penalty": 0.2,
            "jacobian_clamping": [1.0, 2.0],
        },
        256,
    ),
    Instance(ConditionalGAN, {"event_shape": [1, 8, 4], "num_classes": 3, "latent_dim": 2, "channels": 8}, 256),
    Instance(WGAN, {"event_shape": [1, 4, 8], "latent_dim": 2, "channels": 8, "critic_steps": 3}, 256),
    Instance(WGANGP, {"event_shape": [1, 4, 8], "latent_dim": 2, "channels": 8, "critic_steps": 2}, 256),
    Instance(SNGAN, {"event_shape": [1, 8, 4], "latent_dim": 2, "channels": 8}, 256),
    Instance(R3GAN, {"event_shape": [1, 8, 4], "latent_dim": 2, "channels": 8, "hidden": 5}, 256),
    Instance(ALI, {"event_shape": [1, 8, 12], "latent_dim": 3, "channels": 8, "hidden": 8}, 256),
    Instance(EDM, {"event_shape": [2], "channels": [8, 8]}, None),
    Instance(EDM, {"event_shape": [1, 8, 4], "channels": [4, 8]}, 256),
    Instance(ConditionalEDM, {"event_shape": [2, 4, 4], "channels": [4, 8], "num_classes": 3}, 256),
    Instance(ConsistencyModel, {"event_shape": [1, 4, 4], "channels": [4, 8], "num_classes": 3}, 256),
    Instance(DDPM, {"event_shape": [2], "channels": [8, 8], "num_steps": 50}, None),
    Instance(FlowMatching, {"event_shape": [2], "channels": [8, 8]}, None),
    Instance(LeNet, {"event_shape": [1, 16, 20], "num_classes": 4, "channels": 2, "num_features": 8}, 256),
    Instance(
        ResNet,
        {"event_shape": [3, 16, 20], "num_classes": 4, "channels": [4, 6], "max_shift": 0, "label_smoothing": 0.0},
        256,
    ),
]


def having(*capabilities: type, where: Callable[[Instance], bool] = lambda instance: True) -> pytest.MarkDecorator:
    """Runs a test on every instance that has these capabilities."""
    found = [i for i in INSTANCES if all(issubclass(i.cls, c) for c in capabilities) and where(i)]
    names = [f"{i.cls.__name__}-{i.levels or 'real'}" for i in found]
    return pytest.mark.parametrize("instance", [pytest.param(i, id=n) for i, n in zip(found, names, strict=True)])


def concrete(cls: type) -> set[type]:
    """All models below a class of the zoo: those that can be built and belong to one of its families, as zoo/vae/."""
    below = set().union(*({child} | concrete(child) for child in cls.__subclasses__()))
    package = Path(zoo.__file__).parent
    in_family = {c for c in below if package in Path(inspect.getfile(c)).parents[1:]}
    return {c for c in in_family if not inspect.isabstract(c)}
