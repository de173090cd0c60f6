"""Measures epsilon and accuracy under differential privacy for 100, 1,000 and 10,000 simulated clients.

    python benchmarks/privacy.py [--rounds 100] [--noise 1.0] [--seed 0]

Persons are drawn by MiniReID's code (synthetic). A client has four persons of a pool of 2,500 with four images each; in
every round each client takes part with probability 100 / clients (`selection=poisson`). The exchanged model is one
linear layer from 16 x 8 pixels to 32 numbers, small enough for noise. Clipping, noise, weights and epsilon come from
`callbacks.differential_privacy`; local training is vectorised over the clients of a round.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.data.minireid.camera import Studio
from fedreid_pl.data.minireid.domains import DOMAINS
from fedreid_pl.data.minireid.schedule import Shot
from fedreid_pl.functional.differential_privacy import add_noise, clip_update, gaussian_epsilon, public_weights
from fedreid_pl.functional.secret_noise import SecretStream, new_key

PERSONS, PICTURES, TEST, PER_CLIENT = 2500, 4, 300, 4
DELTA, CLIP, PER_ROUND = 1e-5, 1.0, 100
STEPS, RATE, SCALE = 5, 2.0, 10.0


def draw(persons: int, first: int) -> Tensor:
    """Returns `[persons, 4, 384]`: small images of drawn persons by four cameras, without each image's mean colour."""
    studio = Studio(replace(DOMAINS["mini-market1501"], name="privacy"))
    rows = []
    for person in range(first, first + persons):
        for camera in range(1, PICTURES + 1):
            picture = studio.take(Shot(path="", kind="person", person=person, camera=camera, index=0))
            rows.append(np.asarray(picture.convert("RGB").resize((8, 16), Image.Resampling.BOX), dtype=np.float32))
    pixels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2) / 255
    pixels = pixels - pixels.mean(dim=(2, 3), keepdim=True)
    return pixels.reshape(persons, PICTURES, -1)


def local_training(weight: Tensor, pictures: Tensor) -> Tensor:
    """Returns `[K, 384, 32]`: the layer after a few steps at each of K clients on images `[K, persons, 4, 384]`."""
    clients = weight.expand(len(pictures), -1, -1).clone().requires_grad_()
    target = torch.arange(PER_CLIENT).repeat_interleave(PICTURES).repeat(len(pictures))
    for _ in range(STEPS):
        features = F.normalize(torch.einsum("kpcd,kde->kpce", pictures, clients), dim=3)
        others = (features.sum(2, keepdim=True) - features).unsqueeze(2)  # excludes the image from its person's mean
        means = features.mean(2)[:, None, None].expand(-1, PER_CLIENT, PICTURES, -1, -1).clone()
        own = torch.arange(PER_CLIENT)
        means[:, own, :, own] = (others.squeeze(2) / (PICTURES - 1)).transpose(0, 1)
        logits = SCALE * torch.einsum("kpce,kpcqe->kpcq", features, F.normalize(means, dim=4))
        loss = F.cross_entropy(logits.reshape(-1, PER_CLIENT), target, reduction="sum") / (PER_CLIENT * PICTURES)
        (gradient,) = torch.autograd.grad(loss, clients)
        clients = (clients - RATE * gradient).detach().requires_grad_()
    return clients.detach()


def rank1(weight: Tensor, test: Tensor) -> float:
    """Returns the share of the first camera's images whose nearest image of another camera shows the same person."""
    features = F.normalize(test @ weight, dim=2)
    similarity = torch.einsum("pe,qce->pqc", features[:, 0], features[:, 1:]).amax(2)
    return float((similarity.argmax(1) == torch.arange(len(test))).float().mean())


def federation(pool: Tensor, test: Tensor, clients: int, rounds: int, noise: float, seed: int) -> float:
    """Returns Rank-1 after a run; `noise=0` neither clips nor adds noise."""
    draws = np.random.default_rng(seed)
    own = np.stack([draws.choice(len(pool), PER_CLIENT, replace=False) for _ in range(clients)])
    weight = torch.randn(pool.shape[2], 32, generator=torch.Generator().manual_seed(seed)) / pool.shape[2] ** 0.5
    rate = PER_ROUND / clients
    shares = public_weights({str(client): 1.0 for client in range(clients)}, rate)
    for _ in range(rounds):
        taking = np.flatnonzero(SecretStream(new_key(), "selection").uniform(clients) <= rate)
        trained = local_training(weight, pool[torch.from_numpy(own[taking])])
        total = {"w": weight.double()}
        for client, state in zip(taking, trained, strict=True):
            clipped = clip_update({"w": weight}, {"w": state}, ["w"], CLIP if noise else float("inf"))
            total["w"] += shares[str(client)] * (clipped["w"] - weight)
        if noise:
            total = add_noise(total, ["w"], noise * CLIP * max(shares.values()), SecretStream(new_key(), "n").normal)
        weight = total["w"].float()
    return rank1(weight, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.process_time()
    pool, test = draw(PERSONS, 0), draw(TEST, PERSONS)
    start = federation(pool, test, PER_ROUND, 0, 0.0, options.seed)
    print(f"synthetic persons; Rank-1 of the start layer {100 * start:.1f} %; {options.rounds} rounds, delta {DELTA}")
    print(f"{'clients':>8} {'noise z':>8} {'epsilon':>8} {'Rank-1 %':>9}")
    for clients in (100, 1000, 10000):
        for noise in (0.0, *options.noise):
            score = federation(pool, test, clients, options.rounds, noise, options.seed)
            epsilon = gaussian_epsilon(noise, options.rounds, DELTA, PER_ROUND / clients) if noise else float("inf")
            print(f"{clients:>8,} {noise:>8.2g} {epsilon:>8.3g} {100 * score:>9.1f}", flush=True)
    print(f"{time.process_time() - began:.0f} s of the processor")


if __name__ == "__main__":
    main()
