"""A small committor-like network on descriptors, trained with plain torch.

Run it from the repository's root, after the simulation, with ``python -m export_scripts.train``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import typer
from rich.progress import track
from torch import Tensor, nn

from export_scripts.simulation import HEAVY_ATOMS, basin_labels


class Standardize(nn.Module):
    """Subtract the mean of the training data and divide by its standard deviation.

    Parameters
    ----------
    mean, std : torch.Tensor
        Shape (n_descriptors,).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Return standardised descriptors, shape (batch, n_descriptors)."""
        standardized: Tensor = (descriptors - self.mean) / self.std
        return standardized


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and how well it tells the basins apart.

    Attributes
    ----------
    network : torch.nn.Module
        Maps descriptors (batch, n_descriptors) to the collective variable z (batch, 1), float32;
        the committor-like function is q = sigmoid(z).
    accuracy : float
        Fraction of held-out frames with q on the right side of 1/2.
    loss : float
        Final training loss.
    """

    network: nn.Module
    accuracy: float
    loss: float


def pair_distances(positions: Tensor) -> Tensor:
    """Return the distances of all pairs (i, j), i < j, in the order (0, 1), (0, 2), ...

    Parameters
    ----------
    positions : torch.Tensor
        Shape (batch, n_atoms, 3).

    Returns
    -------
    torch.Tensor
        Shape (batch, n_atoms * (n_atoms - 1) / 2), in the unit of the positions.
    """
    n_atoms = positions.shape[1]
    first, second = torch.triu_indices(n_atoms, n_atoms, offset=1, device=positions.device)
    distances: Tensor = torch.linalg.vector_norm(positions[:, second] - positions[:, first], dim=2)
    return distances


def boundary_loss(z: Tensor, labels: Tensor) -> Tensor:
    r"""Return the boundary part of the committor's variational loss.

    :math:`\langle q^2 \rangle_A + \langle (1 - q)^2 \rangle_B` with q = sigmoid(z) (Kang, Trizio
    and Parrinello, Nat. Comput. Sci. 4, 451 (2024)).
    """
    q = torch.sigmoid(z.squeeze(1))
    return torch.mean(q[labels == 0] ** 2) + torch.mean((1.0 - q[labels == 1]) ** 2)


def train_committor_like(
    descriptors: Tensor,
    labels: Tensor,
    *,
    n_hidden: int = 32,
    n_epochs: int = 300,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    seed: int = 2026,
) -> TrainedNetwork:
    """Train n_descriptors-n_hidden-n_hidden-1, tanh, to be 0 in one basin and 1 in the other.

    Parameters
    ----------
    descriptors : torch.Tensor
        Shape (n_frames, n_descriptors); trained on as float32.
    labels : torch.Tensor
        0 or 1 for each frame, shape (n_frames,), int64.
    n_hidden : int
        Width of both hidden layers.
    n_epochs : int
        Full-batch steps of AdamW.
    learning_rate, weight_decay : float
        Of AdamW; the decay keeps the network smooth between the basins.
    seed : int
        Seed of the initial weights and of the held-out fifth of the frames.

    Returns
    -------
    TrainedNetwork
        In evaluation mode, its parameters not requiring gradients.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(descriptors), generator=generator)
    held_out, training = order[: len(order) // 5], order[len(order) // 5 :]
    inputs = descriptors.to(torch.float32)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            Standardize(inputs[training].mean(0), inputs[training].std(0)),
            nn.Linear(inputs.shape[1], n_hidden),
            nn.Tanh(),
            nn.Linear(n_hidden, n_hidden),
            nn.Tanh(),
            nn.Linear(n_hidden, 1),
        )
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    for _ in track(range(n_epochs), description="Training the network"):
        optimizer.zero_grad()
        loss = boundary_loss(network(inputs[training]), labels[training])
        torch.autograd.backward(loss)
        optimizer.step()

    network.eval().requires_grad_(False)
    predicted = network(inputs[held_out]).squeeze(1) > 0
    accuracy = (predicted == labels[held_out].bool()).double().mean().item()
    return TrainedNetwork(network, accuracy, loss.item())


def main(
    trajectory: Path = Path("alanine_dipeptide.npz"), output: Path = Path("network.pth")
) -> None:
    """Train the network on the pair distances of the heavy atoms, and save its state."""
    frames = np.load(trajectory)
    positions = torch.from_numpy(frames["positions"][:, HEAVY_ATOMS])
    labels = torch.from_numpy(basin_labels(frames["phi"]))
    trained = train_committor_like(pair_distances(positions), labels)
    torch.save(trained.network.state_dict(), output)
    typer.echo(f"{output}: {trained.accuracy:.1%} of held-out frames on the right side")


if __name__ == "__main__":
    typer.run(main)
