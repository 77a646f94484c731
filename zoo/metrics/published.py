"""Numbers from the literature, beside which tables show those of the checkpoints.

A likelihood is (model, value, kind, source), a quality (model, FID, spread over training seeds).
"""

from __future__ import annotations

# Test negative log-likelihood in nats: table 4 of van den Oord et al. 2016 (Pixel Recurrent Neural Networks,
# https://arxiv.org/abs/1601.06759) and the sources that it names. The last rows come from table 1 of Larochelle &
# Murray 2011 (https://proceedings.mlr.press/v15/larochelle11a.html), Lamb et al. 2016
# (https://arxiv.org/abs/1610.09038) and Gulrajani et al. 2017 (https://arxiv.org/abs/1611.05013). Planar maps: table 2
# of Rezende & Mohamed 2015 (https://arxiv.org/abs/1505.05770).
BINARIZED_MNIST_NLL = (
    ("uniform", 543.43, "exact", "784 log 2"),
    ("DBM, 2 hidden layers", 84.62, "estimate", "Salakhutdinov & Hinton 2009"),
    ("DBN, 2 hidden layers", 84.55, "estimate", "Murray & Salakhutdinov 2009"),
    ("NADE", 88.33, "exact", "Larochelle & Murray 2011"),
    ("EoNADE, 2 hidden layers, 128 orderings", 85.10, "exact", "Uria et al. 2014"),
    ("EoNADE-5, 2 hidden layers, 128 orderings", 84.68, "exact", "Raiko et al. 2014"),
    ("DLGM", 86.60, "estimate", "Rezende et al. 2014"),
    ("DLGM, 8 leapfrog steps", 85.51, "estimate", "Salimans et al. 2015"),
    ("DLGM, 80 planar maps", 85.10, "bound", "Rezende & Mohamed 2015"),
    ("DARN, 1 hidden layer", 84.13, "estimate", "Gregor et al. 2014"),
    ("MADE, 2 hidden layers, 32 masks", 86.64, "exact", "Germain et al. 2015"),
    ("DRAW", 80.97, "bound", "Gregor et al. 2015"),
    ("PixelCNN", 81.30, "exact", "van den Oord et al. 2016"),
    ("Row LSTM", 80.54, "exact", "van den Oord et al. 2016"),
    ("Diagonal BiLSTM, 1 layer, 32 units", 80.75, "exact", "van den Oord et al. 2016"),
    ("Diagonal BiLSTM, 7 layers, 16 units", 79.20, "exact", "van den Oord et al. 2016"),
    ("mixture of 500 Bernoullis", 137.64, "exact", "Larochelle & Murray 2011"),
    ("FVSBN", 97.45, "exact", "Larochelle & Murray 2011"),
    ("RNN, professor forcing", 79.58, "exact", "Lamb et al. 2016"),
    ("gated PixelCNN, re-implemented", 80.10, "exact", "Gulrajani et al. 2017"),
)

# Test negative log-likelihood in bits per dimension. Flows: table 1 of Chen et al. 2019 (Residual Flows,
# https://arxiv.org/abs/1906.02735) and the sources that it names; densities of real numbers are bounds for 8-bit
# pixels. NICE: 1980.5 nats of Dinh et al. 2015 (https://arxiv.org/abs/1410.8516) are 8 - 1980.5/(784 log 2) bits.
# Gaussian and MAF: Papamakarios et al. 2017 (https://arxiv.org/abs/1705.07057). Transformers: table 1 of Katharopoulos
# et al. 2020 (https://arxiv.org/abs/2006.16236). PixelCNN: tutorial 12 of https://uvadlc-notebooks.readthedocs.io.
MNIST_BPD = (
    ("uniform", 8.00, "exact", "log2 256"),
    ("NICE", 4.36, "bound", "Dinh et al. 2015"),
    ("multivariate Gaussian", 2.01, "bound", "Papamakarios et al. 2017"),
    ("MAF, 5 layers", 1.89, "bound", "Papamakarios et al. 2017"),
    ("Real NVP", 1.06, "bound", "Dinh et al. 2017"),
    ("Glow", 1.05, "bound", "Kingma & Dhariwal 2018"),
    ("FFJORD", 0.99, "bound", "Grathwohl et al. 2019"),
    ("Residual Flow", 0.97, "bound", "Chen et al. 2019"),
    ("gated PixelCNN", 0.81, "exact", "Lippe 2020"),
    ("linear transformer over pixels", 0.644, "exact", "Katharopoulos et al. 2020"),
    ("softmax transformer over pixels", 0.621, "exact", "Katharopoulos et al. 2020"),
)

# Test negative log-likelihood in bits per dimension: table 5 of van den Oord et al. 2016; densities of real numbers are
# bounds for 8-bit pixels. Later flows: table 1 of Chen et al. 2019, and table 1 of Ho et al. 2019 (Flow++,
# https://arxiv.org/abs/1902.00275).
CIFAR10_BPD = (
    ("uniform", 8.00, "exact", "van den Oord et al. 2016"),
    ("multivariate Gaussian", 4.70, "bound", "van den Oord et al. 2016"),
    ("NICE", 4.48, "bound", "Dinh et al. 2014"),
    ("deep diffusion", 4.20, "bound", "Sohl-Dickstein et al. 2015"),
    ("deep GMM", 4.00, "bound", "van den Oord & Schrauwen 2014"),
    ("Real NVP", 3.49, "bound", "Dinh et al. 2017"),
    ("RIDE", 3.47, "bound", "Theis & Bethge 2015"),
    ("FFJORD", 3.40, "bound", "Grathwohl et al. 2019"),
    ("Glow", 3.35, "bound", "Kingma & Dhariwal 2018"),
    ("Residual Flow", 3.28, "bound", "Chen et al. 2019"),
    ("PixelCNN", 3.14, "exact", "van den Oord et al. 2016"),
    ("Row LSTM", 3.07, "exact", "van den Oord et al. 2016"),
    ("Flow++", 3.08, "bound", "Ho et al. 2019"),
    ("Diagonal BiLSTM", 3.00, "exact", "van den Oord et al. 2016"),
)

# The best FID of each model in a search over the hyperparameters of one architecture, on the features of Inception:
# Lucic et al. 2018 (Are GANs Created Equal?, https://arxiv.org/abs/1711.10337).
MNIST_FID = (
    ("GAN, minimax", 9.8, 0.9),
    ("GAN, non-saturating", 6.8, 0.5),
    ("LSGAN", 7.8, 0.6),
    ("WGAN", 6.7, 0.4),
    ("WGAN-GP", 20.3, 5.0),
    ("DRAGAN", 7.6, 0.4),
    ("BEGAN", 13.1, 1.0),
    ("VAE", 23.8, 0.6),
)
FASHION_MNIST_FID = (
    ("GAN, minimax", 29.6, 1.6),
    ("GAN, non-saturating", 26.5, 1.6),
    ("LSGAN", 30.7, 2.2),
    ("WGAN", 21.5, 1.6),
    ("WGAN-GP", 24.5, 2.1),
    ("DRAGAN", 27.7, 1.2),
    ("BEGAN", 22.9, 0.9),
    ("VAE", 58.7, 1.2),
)
CIFAR10_FID = (
    ("GAN, minimax", 72.7, 3.6),
    ("GAN, non-saturating", 58.5, 1.9),
    ("LSGAN", 87.1, 47.5),
    ("WGAN", 55.2, 2.3),
    ("WGAN-GP", 55.8, 0.9),
    ("DRAGAN", 69.8, 2.0),
    ("BEGAN", 71.4, 1.6),
    ("VAE", 155.7, 11.6),
)
