"""A linear classifier on the vectors of a model that is not trained: what tuning has to beat.

It is multinomial logistic regression with an L2 penalty, fitted by L-BFGS. How strong the penalty
is, is chosen on a fifth of the training rows that is kept back for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Inverse penalties that are tried, as scikit-learn's LogisticRegression counts its C."""
KEPT_BACK = 5
"""Of so many training rows one is kept back."""
ITERATIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHead:
    """Weights of a classifier. Shapes: D dimensions, C classes."""

    weights_DC: torch.Tensor
    bias_C: torch.Tensor

    def chances(self, vectors_BD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(B, C) chances of the classes."""
        at_BD = torch.from_numpy(vectors_BD).to(self.bias_C.device)
        logits_BC = at_BD @ self.weights_DC + self.bias_C
        chances_BC: npt.NDArray[np.float32] = logits_BC.softmax(-1).cpu().numpy()
        return chances_BC


def fit_linear_head(
    vectors_BD: npt.NDArray[np.float32],
    labels_B: Sequence[int],
    classes: int,
    device: torch.device,
) -> tuple[LinearHead, float]:
    """(the head, the inverse penalty that was chosen) of training rows."""
    labels = torch.tensor(labels_B)
    vectors = torch.from_numpy(vectors_BD)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    back, rest = order[::KEPT_BACK], order[torch.arange(len(order)) % KEPT_BACK != 0]
    best, chosen = -1.0, 1.0
    for strength in STRENGTHS if len(rest) else ():
        head = _fit(vectors[rest].to(device), labels[rest].to(device), classes, strength)
        found = torch.from_numpy(head.chances(vectors[back].numpy())).argmax(-1)
        right = float((found == labels[back]).float().mean())
        if right > best:
            best, chosen = right, strength
    return _fit(vectors.to(device), labels.to(device), classes, chosen), chosen


def _fit(
    vectors_BD: torch.Tensor, labels_B: torch.Tensor, classes: int, strength: float
) -> LinearHead:
    where: dict[str, Any] = {"device": vectors_BD.device, "requires_grad": True}
    weights_DC = torch.zeros(vectors_BD.shape[1], classes, **where)
    bias_C = torch.zeros(classes, **where)
    optimizer = torch.optim.LBFGS(
        [weights_DC, bias_C], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        logits_BC = vectors_BD @ weights_DC + bias_C
        fit = torch.nn.functional.cross_entropy(logits_BC, labels_B)
        whole = fit + weights_DC.square().sum() / (2 * strength * len(labels_B))
        whole.backward()
        return float(whole.detach())

    optimizer.step(loss)
    return LinearHead(weights_DC=weights_DC.detach(), bias_C=bias_C.detach())
