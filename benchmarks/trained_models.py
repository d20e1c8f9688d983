"""Small models of mlcolvar, trained for two epochs on random positions of five atoms."""

from __future__ import annotations

import warnings

import lightning
import torch
from mlcolvar import cvs
from mlcolvar.core.loss import FisherDiscriminantLoss
from mlcolvar.core.transform import (
    MultipleDescriptors,
    Normalization,
    PairwiseDistances,
    SequentialTransform,
    SwitchingFunctions,
    TorsionalAngle,
)
from mlcolvar.core.transform.descriptors import CoordinationNumbers
from mlcolvar.cvs.unsupervised.vae import VariationalAutoEncoderCV
from mlcolvar.data import DictDataset, DictModule
from torch import nn

N_ATOMS = 5
N_FRAMES = 40
OPEN = {"n_atoms": N_ATOMS, "PBC": False, "cell": [1.0, 1.0, 1.0]}
PERIODIC = {"n_atoms": N_ATOMS, "PBC": True, "cell": [2.5, 2.5, 2.5]}


def distances(box=OPEN, **options):
    return PairwiseDistances(**box, **options)


def torsion(*atoms):
    return TorsionalAngle(list(atoms), mode=["sin", "cos"], **OPEN)


def torsion_and_ends():
    parts = [torsion(0, 1, 2, 3), distances(slicing_pairs=[[0, 3], [1, 4]])]
    return MultipleDescriptors(parts, N_ATOMS)


def coordination():
    cutoff = 1.0
    switch = SwitchingFunctions(6, "Fermi", cutoff, options={"q": 0.2})
    return CoordinationNumbers(
        [0, 1, 2], [3, 4], cutoff, mode="continuous", switching_function=switch, **OPEN
    )


def contacts():
    switch = SwitchingFunctions(10, "Fermi", 1.0, options={"q": 0.3})
    return SequentialTransform(distances(), switch)


def mixed():
    parts = [distances(slicing_pairs=[[0, 1], [0, 4], [2, 3]]), torsion(0, 1, 2, 3), coordination()]
    return MultipleDescriptors(parts, N_ATOMS)


def fit(model, *datasets):
    """Train for two epochs with the model's own loss."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    modules = [DictDataset(dataset) for dataset in datasets]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, DictModule(modules[0] if len(modules) == 1 else modules, lengths=[1.0]))
    return trainer


def sample(preprocessing=None):
    """Return positions, or descriptors of them, as mlcolvar's data."""
    generator = torch.Generator().manual_seed(1)
    positions = torch.randn(N_FRAMES, N_ATOMS, 3, generator=generator)
    return positions.flatten(1) if preprocessing is None else preprocessing(positions)


def labels(n_states=2):
    return (torch.arange(N_FRAMES) % n_states).float()


def committor():
    model = cvs.Committor([10, 12, 8, 1], torch.full((N_ATOMS,), 12.0), alpha=1.0)
    model.preprocessing = distances()
    weights = torch.ones(N_FRAMES)
    return model, fit(model, {"data": sample(), "labels": labels(3), "weights": weights})


def deep_tda():
    centers, sigmas = [[-3.0, 0.0], [3.0, 1.0]], [[0.2, 0.2], [0.2, 0.2]]
    model = cvs.DeepTDA(2, 2, centers, sigmas, [8, 12, 2], options={"nn": {"activation": "elu"}})
    model.preprocessing = mixed()
    return model, fit(model, {"data": sample(model.preprocessing), "labels": labels()})


def deep_tica():
    model = cvs.DeepTICA([4, 12, 5], n_cvs=2, options={"nn": {"activation": "tanh"}})
    model.preprocessing = torsion_and_ends()
    data, ones = sample(model.preprocessing), torch.ones(N_FRAMES - 1)
    lagged = {"data": data[:-1], "data_lag": data[1:], "weights": ones, "weights_lag": ones}
    return model, fit(model, lagged)


def deep_lda():
    model = cvs.DeepLDA([3, 12, 4], n_states=3, options={"nn": {"activation": "softplus"}})
    model.preprocessing = coordination()
    return model, fit(model, {"data": sample(model.preprocessing), "labels": labels(3)})


def autoencoder():
    layers = {"activation": "shifted_softplus", "batchnorm": True, "dropout": 0.1}
    model = cvs.AutoEncoderCV([10, 12, 2], options={"encoder": layers})
    model.preprocessing = distances(PERIODIC)
    trainer = fit(model, {"data": sample(model.preprocessing)})
    model.postprocessing = Normalization(
        2, mean=torch.tensor([0.2, 0.1]), range=torch.tensor([2.0, 3.0])
    )
    return model, trainer


def variational_autoencoder():
    model = VariationalAutoEncoderCV(2, [10, 12, 6], options={"encoder": {"activation": "tanh"}})
    model.preprocessing = contacts()
    return model, fit(model, {"data": sample(model.preprocessing)})


def regression():
    options = {"norm_in": {"mode": "min_max"}, "nn": {"activation": "leaky_relu"}}
    model = cvs.RegressionCV([10, 12, 1], options=options)
    data = sample(distances())
    trainer = fit(model, {"data": data, "target": data.sum(1, keepdim=True)})
    model.preprocessing = nn.Sequential(distances(), nn.Identity())
    return model, trainer


def multi_task():
    main = cvs.AutoEncoderCV([10, 8, 2])
    model = cvs.MultiTaskCV(main, [FisherDiscriminantLoss(n_states=2)], [0.5])
    model.norm_in.set_custom(torch.zeros(10), torch.ones(10))
    model.preprocessing = distances()
    data = sample(model.preprocessing)
    return model, fit(model, {"data": data}, {"data": data, "labels": labels()})


def generator():
    model = cvs.Generator(2, [10, 8, 1], eta=0.1, alpha=0.1, friction=torch.ones(N_ATOMS))
    model.preprocessing = distances()
    return model, fit(model, {"data": sample(), "weights": torch.ones(N_FRAMES)})


MODELS = (
    committor,
    deep_tda,
    deep_tica,
    deep_lda,
    autoencoder,
    variational_autoencoder,
    regression,
    multi_task,
    generator,
)
