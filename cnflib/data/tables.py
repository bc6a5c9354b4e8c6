r"""A small table of real measurements, for density estimation within seconds."""

from typing import NamedTuple

import torch
from torch import Tensor

from cnflib.data._split import fixed_order

__all__ = ["Table", "breast_cancer"]


class Table(NamedTuple):
    r"""Rows of measurements, split once and for all, in raw units.

    Attributes:
        train: The rows to fit, shape ``(N, D)``.
        validation: The rows to choose a model by.
        test: The rows to report.
        columns: The names of the D columns.
        mean: The mean of each column over ``train``, shape ``(D,)``.
        std: The standard deviation of each column over ``train``, with divisor N, shape ``(D,)``.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    columns: tuple[str, ...]
    mean: Tensor
    std: Tensor


def breast_cancer(dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Table:
    r"""Load ten measurements of cell nuclei in 569 images of breast tumours: 341 rows, 114 and 114.

    The columns are the "mean" features of scikit-learn's copy of Wolberg et al. (1993, UCI Machine Learning Repository,
    doi:10.24432/C5DW2B). Radius, perimeter and area of a nucleus are nearly functions of each other, and concavity is 0
    in 13 rows, where a flexible density can gain without bound: watch the validation rows.

    Args:
        dtype: The dtype of the table; None is torch's default dtype.
        device: The device of the table; None is torch's default device.

    Raises:
        ValueError: If dtype is not floating.

    Example:
        >>> breast_cancer().train.shape
        torch.Size([341, 10])
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not dtype.is_floating_point:
        raise ValueError(f"Expected a floating dtype; got {dtype}. Ask for torch.float32 or torch.float64.")

    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    rows = torch.as_tensor(data.data[:, :10], dtype=dtype, device=device)
    order = fixed_order(len(rows)).to(rows.device)
    train, validation, test = rows[order].tensor_split([341, 455])
    columns = tuple(map(str, data.feature_names[:10]))
    return Table(train, validation, test, columns, train.mean(0), train.std(0, correction=0))


def __dir__() -> list[str]:
    return sorted(__all__)
