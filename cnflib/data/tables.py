r"""Tables of real measurements: two small ones, for density estimation within seconds, and the five that papers report.

POWER, GAS, HEPMASS, MINIBOONE and BSDS300 are read from files of one's own, the folder ``data`` of Papamakarios (2018,
doi:10.5281/zenodo.1161203), and prepared as there: log-likelihoods then compare with those of the papers. A file with
another number of columns, a number that is not finite, or a column of one value is refused.

========================  =======  ==========  =======  ============================================
reader                    columns  train rows  test     file
========================  =======  ==========  =======  ============================================
:func:`power`                   6   1,659,917  204,928  ``power/data.npy``
:func:`gas`                     8     852,174  105,206  ``gas/ethylene_CO.pickle``
:func:`hepmass`                21     315,123  174,987  ``hepmass/1000_train.csv``, ``1000_test.csv``
:func:`miniboone`              43      29,556    3,648  ``miniboone/data.npy``
:func:`bsds300`                63   1,000,000  250,000  ``BSDS300/BSDS300.hdf5``
========================  =======  ==========  =======  ============================================
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnflib.data._published import in_units, installed, numbered, own_file, read, standardised, tenths
from cnflib.data._split import fixed_order

__all__ = ["Table", "breast_cancer", "bsds300", "gas", "hepmass", "miniboone", "power", "power_plant"]

Folder = str | os.PathLike[str] | None
Device = torch.device | str | None


class Table(NamedTuple):
    r"""Rows of measurements, split once and for all, in the units that their reader names.

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


def breast_cancer(dtype: torch.dtype | None = None, device: Device = None) -> Table:
    r"""Load ten measurements of cell nuclei in 569 images of breast tumours: 341 rows, 114 and 114, in raw units.

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
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    rows = data.data[:, :10]
    parts = np.split(rows[fixed_order(len(rows)).numpy()], [341, 455])
    return _table(parts, data.feature_names[:10], 10, "scikit-learn's file", dtype, device)


def power_plant(dtype: torch.dtype | None = None, device: Device = None) -> Table:
    r"""Load five hourly measurements of a power plant: 6,698 rows, 1,435 and 1,435, in the units of the plant.

    The columns are the temperature in °C, the vacuum of the exhaust in cm Hg, the pressure in mbar, the relative
    humidity in per cent, and the electrical output in MW. They were recorded to two decimals, and the vacuum has only
    634 values; a density can gain on such steps without bound. So uniform noise in :math:`\pm 0.005` is added, the same
    on every machine; rounding to two decimals gives the readings back. 41 rows repeat others. The file is installed
    with the library, under the licence CC BY 4.0.

    Args:
        dtype: The dtype of the table; None is torch's default dtype.
        device: The device of the table; None is torch's default device.

    Raises:
        ValueError: If dtype is not floating.

    References:
        Combined Cycle Power Plant, Tüfekci and Kaya, 2014, UCI Machine Learning Repository, doi:10.24432/C5002N.

    Example:
        >>> table = power_plant()
        >>> table.train.shape, table.columns[-1]
        (torch.Size([6698, 5]), 'output')
    """
    path = Path(__file__).parent / "files" / "power-plant.txt.gz"
    data, draw = read(path, np.loadtxt, "Install cnflib again."), np.random.RandomState(0)
    rows = (data + draw.uniform(-0.005, 0.005, data.shape))[fixed_order(len(data)).numpy()]
    names = ("temperature", "vacuum", "pressure", "humidity", "output")
    return _table(np.split(rows, [6698, 8133]), names, 5, path, dtype, device)


def power(folder: Folder = None, dtype: torch.dtype | None = None, device: Device = None) -> Table:
    r"""Read POWER: the electricity that a household used, minute by minute over 47 months, in published units.

    The rows are shuffled, the reactive power and the intensity dropped, and uniform noise of the width of a reading's
    last digit is added to all but the time of day, all from NumPy's frozen generator with seed 42. Units are those of
    mean 0 and variance 1 over train and validation rows together.

    Args:
        folder: The folder of ``data.npy``; None is ``$CNFLIB_DATA/power``.
        dtype: The dtype of the table; None is torch's default dtype.
        device: The device of the table; None is torch's default device.

    Raises:
        ValueError: If there is no such file, it is not as published, or dtype is not floating.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios et al., 2017, arXiv:1705.07057.

    Example:
        >>> table = power("data/power")  # doctest: +SKIP
        >>> table.train.shape  # doctest: +SKIP
        torch.Size([1659917, 6])
    """
    path = own_file(folder, "power", "data.npy")
    names = ("active_power", "voltage", "metering_1", "metering_2", "metering_3", "time")
    return _table(in_units(tenths(read(path, _noisy))), names, 6, path, dtype, device)


def _noisy(path: Path) -> np.ndarray:
    data, draw = np.load(path), np.random.RandomState(42)
    draw.shuffle(data)
    n = len(data)
    voltage, active, meters = 0.01 * draw.rand(n, 1), 0.001 * draw.rand(n, 1), draw.rand(n, 3)
    return np.delete(data, [1, 3], axis=1) + np.hstack([active, voltage, meters, np.zeros((n, 1))])


def gas(folder: Folder = None, dtype: torch.dtype | None = None, device: Device = None) -> Table:
    r"""Read GAS: chemical sensors in mixtures of ethylene and carbon monoxide, in published units.

    The two concentrations and the time are dropped, then each sensor that correlates above 0.98 with a later one. Units
    are those of mean 0 and variance 1, of divisor N - 1, over all rows; the last tenth is the test.

    The file is a pickle, which can run any code while it is read: take it from a source that you trust.

    Args:
        folder: The folder of ``ethylene_CO.pickle``; None is ``$CNFLIB_DATA/gas``.
        dtype: The dtype of the table; None is torch's default dtype.
        device: The device of the table; None is torch's default device.

    Raises:
        ValueError: If there is no such file, pandas cannot read it, it is not as published, or dtype is not
            floating.
        ImportError: If pandas is not installed.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios et al., 2017, arXiv:1705.07057.

    Example:
        >>> gas("data/gas").train.shape  # doctest: +SKIP
        torch.Size([852174, 8])
    """
    path, pandas = own_file(folder, "gas", "ethylene_CO.pickle"), installed("pandas")
    way = "It is of 2017: read it with the pandas of its time and write it again, frame.to_pickle(path)."
    frame = read(path, lambda path: pandas.read_pickle(path).drop(columns=["Meth", "Eth", "Time"]), way)
    repeated = (np.triu(frame.corr().to_numpy(), 1) > 0.98).any(1)
    frame = frame.loc[:, ~repeated]
    data = np.array((frame - frame.mean()) / frame.std())
    return _table(tenths(data), frame.columns, 8, path, dtype, device)


def hepmass(folder: Folder = None, dtype: torch.dtype | None = None, device: Device = None) -> Table:
    r"""Read HEPMASS: collisions of particles, those with a new particle of mass 1000, in published units.

    Of the two files the rows of label 1 are taken, in units of mean 0 and variance 1, of divisor N - 1, over the rows
    of the first. A column whose least value there occurs more than five times is dropped, as a discrete one. The last
    tenth of the first file is the validation, the second the test.

    Args:
        folder: The folder of ``1000_train.csv`` and ``1000_test.csv``; None is ``$CNFLIB_DATA/hepmass``.
        dtype: The dtype of the table; None is torch's default dtype.
        device: The device of the table; None is torch's default device.

    Raises:
        ValueError: If there are no such files, they are not as published, or dtype is not floating.
        ImportError: If pandas is not installed.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios et al., 2017, arXiv:1705.07057.

    Example:
        >>> hepmass("data/hepmass").train.shape  # doctest: +SKIP
        torch.Size([315123, 21])
    """
    paths = [own_file(folder, "hepmass", f"1000_{part}.csv") for part in ("train", "test")]
    pandas = installed("pandas")
    frames = [read(path, lambda path: pandas.read_csv(path, index_col=False)) for path in paths]
    names = frames[0].columns[1:]  # the test file has one column more than these
    rows, test = (f.to_numpy()[f.iloc[:, 0].to_numpy() == 1, 1 : 1 + len(names)] for f in frames)
    rows, test = standardised((rows, test), rows, correction=1)
    smooth = (rows == rows.min(0)).sum(0) <= 5
    train, validation = np.split(rows[:, smooth], [len(rows) - int(0.1 * len(rows))])
    return _table((train, validation, test[:, smooth]), names[smooth], 21, paths[0].parent, dtype, device)


def miniboone(folder: Folder = None, dtype: torch.dtype | None = None, device: Device = None) -> Table:
    r"""Read MINIBOONE: events in a detector of neutrinos, in published units.

    Columns and outliers were dropped before the file was written. The last tenth is the test. Units are those of mean 0
    and variance 1 over train and validation rows together.

    Args:
        folder: The folder of ``data.npy``; None is ``$CNFLIB_DATA/miniboone``.
        dtype: The dtype of the table; None is torch's default dtype.
        device: The device of the table; None is torch's default device.

    Raises:
        ValueError: If there is no such file, it is not as published, or dtype is not floating.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios et al., 2017, arXiv:1705.07057.

    Example:
        >>> miniboone("data/miniboone").train.shape  # doctest: +SKIP
        torch.Size([29556, 43])
    """
    path = own_file(folder, "miniboone", "data.npy")
    parts = read(path, lambda path: in_units(tenths(np.load(path))))
    return _table(parts, numbered(43), 43, path, dtype, device)


def bsds300(folder: Folder = None, dtype: torch.dtype | None = None, device: Device = None) -> Table:
    r"""Read BSDS300: patches of 8 × 8 pixels of photographs, without their mean and their last pixel, as published.

    Grey levels were given uniform noise and scaled to [0, 1] before the file was written; nothing is done to them here.

    Args:
        folder: The folder of ``BSDS300.hdf5``; None is ``$CNFLIB_DATA/BSDS300``.
        dtype: The dtype of the table; None is torch's default dtype.
        device: The device of the table; None is torch's default device.

    Raises:
        ValueError: If there is no such file, it is not as published, or dtype is not floating.
        ImportError: If h5py is not installed.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios et al., 2017, arXiv:1705.07057.

    Example:
        >>> bsds300("data/BSDS300").train.shape  # doctest: +SKIP
        torch.Size([1000000, 63])
    """
    path, h5py = own_file(folder, "BSDS300", "BSDS300.hdf5"), installed("h5py")

    def parts(path: Path) -> list[np.ndarray]:
        with h5py.File(path, "r") as file:
            return [file[name][:] for name in ("train", "validation", "test")]

    return _table(read(path, parts), numbered(63), 63, path, dtype, device)


def _table(
    parts: Sequence[np.ndarray],
    names: Sequence[str],
    columns: int,
    path: Path | str,
    dtype: torch.dtype | None,
    device: Device,
) -> Table:
    """The table of three parts with so many columns, all of them finite numbers that differ from row to row."""
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"Expected a floating dtype; got {dtype}. Ask for torch.float32 or torch.float64.")
    if fault := _unusable(parts, names, columns):
        raise ValueError(
            f"Expected {path} to give {columns} columns of finite numbers that vary, in rows for train, validation and "
            f"test; got {fault}. Unpack the published file again."
        )
    dtype = torch.get_default_dtype() if dtype is None else dtype
    train, validation, test = (torch.as_tensor(part, dtype=dtype, device=device) for part in parts)
    return Table(train, validation, test, tuple(map(str, names)), train.mean(0), train.std(0, correction=0))


def _unusable(parts: Sequence[np.ndarray], names: Sequence[str], columns: int) -> str:
    """What is wrong with the parts of a table, if anything."""
    if any(part.shape[1:] != (columns,) or not len(part) for part in parts):
        return f"the shapes {', '.join(str(part.shape) for part in parts)}"
    varying = parts[0].max(0) > parts[0].min(0)
    usable = np.all([varying, *(np.isfinite(part).all(0) for part in parts)], axis=0)
    bad = [str(name) for name, good in zip(names, usable) if not good]
    return "NaN, inf or one value alone in " + ", ".join(bad) if bad else ""


def __dir__() -> list[str]:
    return sorted(__all__)
