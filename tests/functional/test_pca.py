"""Principal components compared with scikit-learn, and invariances."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA

from fedreid_pl.functional.pca import principal_components


def test_coordinates_are_those_of_scikit_learn_up_to_the_sign() -> None:
    features = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 9)
    coordinates, share = principal_components(features)
    reference = PCA(2, svd_solver="full")
    wanted = torch.from_numpy(reference.fit_transform(features.double().numpy()))
    torch.testing.assert_close(coordinates.abs(), wanted.abs())
    torch.testing.assert_close(share, torch.from_numpy(reference.explained_variance_ratio_))


def test_a_shift_changes_no_coordinate_and_a_reflection_keeps_distances() -> None:
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plane, _ = principal_components(features)
    shifted, _ = principal_components(features + 3)
    torch.testing.assert_close(plane, shifted)
    mirrored, _ = principal_components(-features)
    torch.testing.assert_close(torch.cdist(plane, plane), torch.cdist(mirrored, mirrored))


@pytest.mark.parametrize("features", [torch.ones(1, 3), torch.ones(4, 3), torch.tensor([[1.0], [2.0]])])
def test_features_without_a_plane_have_zero_coordinates(features: torch.Tensor) -> None:
    coordinates, share = principal_components(features)
    assert coordinates.shape == (len(features), 2) and bool((coordinates[:, 1] == 0).all())
    assert float(share.sum()) in (0.0, pytest.approx(1.0))


@pytest.mark.parametrize("features", [torch.ones(3), torch.empty(0, 3), torch.tensor([[float("nan"), 1.0]])])
def test_features_without_components_are_refused(features: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be"):
        principal_components(features)
