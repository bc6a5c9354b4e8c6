"""The tables that papers report: small files in the published formats, prepared as published."""

import sys

import numpy as np
import pytest
import torch

from cnflib.data import tables

N = 1000
REST = slice(None, 900)  # what is not test


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=tolerance, atol=tolerance)


def whole(table):
    """All rows in the order of the file, and a check that the parts are tenths."""
    assert [len(part) for part in table[:3]] == [810, 90, 100]
    assert len(table.columns) == table.train.shape[1]
    close(table.mean, table.train.mean(0))
    close(table.std, table.train.std(0, correction=0))
    return torch.cat(table[:3]).numpy()


def draws(*shape):
    return np.random.default_rng(0).normal(3, 2, size=shape)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CNFLIB_DATA", str(tmp_path))
    for name in ("power", "gas", "hepmass", "miniboone", "BSDS300"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_miniboone_has_units_of_all_that_is_not_test(folder):
    data = draws(N, 43)
    np.save(folder / "miniboone" / "data.npy", data)
    rows = whole(tables.miniboone(dtype=torch.float64))
    close(rows, (data - data[REST].mean(0)) / data[REST].std(0))
    assert tables.miniboone(folder / "miniboone").train.dtype == torch.float32


def test_power_is_shuffled_and_gets_noise_of_the_width_of_the_last_digit(folder):
    """The frozen generator of seed 42 shuffles the rows, then draws noise for voltage, active power and the meters."""
    draw = np.random.default_rng(0)
    data = np.c_[
        draw.integers(0, 5000, (N, 4)) / 100, draw.integers(0, 40, (N, 3)), np.arange(N), np.zeros(N)
    ]
    data = data[:, :8].astype(float)
    np.save(folder / "power" / "data.npy", data)
    rows = whole(table := tables.power(dtype=torch.float64))
    frozen = np.random.RandomState(42)
    order = frozen.permutation(N)
    voltage, active, meters = frozen.rand(N), frozen.rand(N), frozen.rand(N, 3)
    kept = data[order][:, [0, 2, 4, 5, 6, 7]]
    noisy = kept + np.c_[0.001 * active, 0.01 * voltage, meters, np.zeros(N)]
    close(rows, (noisy - noisy[REST].mean(0)) / noisy[REST].std(0))
    assert table.columns[:2] == ("active_power", "voltage") and table.columns[-1] == "time"


def test_gas_drops_sensors_until_no_two_agree(folder):
    """The first column with a later one above 0.98 goes, until none is left; not one at -0.99."""
    pandas = pytest.importorskip("pandas")
    data = draws(N, 6)
    data = np.c_[data, data[:, 0] + 0.1 * draws(N, 1)[:, 0] ** 2, -data[:, 1], 2 * data[:, 2], data[:, 0]]
    names = [f"R{k}" for k in range(data.shape[1])]
    frame = pandas.DataFrame(np.c_[draws(N, 3), data], columns=["Time", "Meth", "Eth", *names])
    frame.to_pickle(folder / "gas" / "ethylene_CO.pickle")
    left = list(range(data.shape[1]))
    while True:
        agree = (np.corrcoef(data[:, left].T) > 0.98).sum(1) > 1
        if not agree.any():
            break
        del left[agree.argmax()]
    rows = whole(table := tables.gas(dtype=torch.float64))
    assert table.columns == tuple(names[k] for k in left) and len(left) == 8
    close(rows, (data[:, left] - data[:, left].mean(0)) / data[:, left].std(0, ddof=1))


def test_hepmass_takes_the_signal_and_drops_columns_that_repeat_their_least_value(folder):
    pandas = pytest.importorskip("pandas")
    data, names = draws(2 * N, 22), [f"f{k}" for k in range(22)]
    data[:, 1] = np.maximum(data[:, 1], 2)  # the least value, many times
    data[:, 2] = np.minimum(data[:, 2], 4)  # the largest, which does not count
    label = np.arange(2 * N) % 2
    files = {
        "1000_train.csv": (data, names),
        "1000_test.csv": (np.c_[data[::-1], draws(2 * N, 1)], [*names, "mass"]),
    }
    for file, (rows, columns) in files.items():
        frame = pandas.DataFrame(np.c_[label, rows], columns=["# label", *columns])
        frame.to_csv(folder / "hepmass" / file, index=False)
    table = tables.hepmass(dtype=torch.float64)
    smooth = [0, *range(2, 22)]
    assert table.columns == tuple(f"f{k}" for k in smooth)
    signal = data[label == 1][:, smooth]
    units = lambda rows: (rows - signal.mean(0)) / signal.std(0, ddof=1)
    close(torch.cat(table[:2]), units(signal))
    close(table.test, units(data[::-1][label == 1][:, smooth]))
    assert len(table.validation) == N // 10


def test_bsds300_is_as_in_its_file(folder):
    h5py = pytest.importorskip("h5py")
    parts = {
        name: draws(n, 63).astype(np.float32) for name, n in (("train", 9), ("validation", 4), ("test", 5))
    }
    with h5py.File(folder / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for name, rows in parts.items():
            file[name] = rows
    table = tables.bsds300()
    for name, rows in parts.items():
        close(getattr(table, name), rows, 0)


READERS = {
    "power": (tables.power, "data.npy", None),
    "gas": (tables.gas, "ethylene_CO.pickle", "pandas"),
    "hepmass": (tables.hepmass, "1000_train.csv", "pandas"),
    "miniboone": (tables.miniboone, "data.npy", None),
    "BSDS300": (tables.bsds300, "BSDS300.hdf5", "h5py"),
}
readers = pytest.mark.parametrize("name", READERS)


@readers
def test_a_missing_file_is_named_with_its_place_and_source(name, folder, monkeypatch):
    read, file, _ = READERS[name]
    for where, expected in ((None, folder / name), (folder / "elsewhere", folder / "elsewhere")):
        with pytest.raises(ValueError, match=f"{expected}/{file}.*zenodo.*CNFLIB_DATA.*folder="):
            read(where)
    monkeypatch.delenv("CNFLIB_DATA")
    with pytest.raises(ValueError, match=rf"\$CNFLIB_DATA/{name}/{file}"):
        read()


@pytest.mark.parametrize("name", [name for name, (*_, module) in READERS.items() if module])
def test_a_missing_library_is_named(name, folder, monkeypatch):
    read, file, module = READERS[name]
    for published in (file, "1000_test.csv"):
        (folder / name / published).touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {module}"):
        read()


def test_a_pickle_that_pandas_cannot_read_is_named(folder):
    pytest.importorskip("pandas")
    (folder / "gas" / "ethylene_CO.pickle").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match=r"ethylene_CO.pickle.*pandas.*to_pickle"):
        tables.gas()


def spoiled(**columns):
    data = draws(N, 43)
    for name, value in columns.items():
        data[5 if value is None else slice(None), int(name[1:])] = value
    return data


FAULTS = {
    "NaN": (lambda: spoiled(x7=None), "x7[.]"),
    "one value": (lambda: spoiled(x3=0.1, x40=2.0), "x3, x40[.]"),
    "columns": (lambda: draws(N, 42), "42"),
    "rows": (lambda: draws(9, 43), "shapes"),
    "axes": (lambda: draws(N), "shapes"),
    "objects": (lambda: np.array([{}] * N), "whole; got ValueError"),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_file_that_is_not_as_published_is_refused_with_its_place(kind, folder):
    make, match = FAULTS[kind]
    np.save(path := folder / "miniboone" / "data.npy", make())
    with pytest.raises(ValueError, match=f"{path}.*{match}"):
        tables.miniboone()


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("name", ["power", "miniboone"])
def test_a_broken_array_is_named_without_advice_to_unpickle(name, content, folder):
    (path := folder / name / "data.npy").write_bytes(content)
    with pytest.raises(ValueError, match=f"Expected {path} to be the published file, whole") as caught:
        READERS[name][0]()
    assert "pickle" not in str(caught.value)


def test_every_table_has_its_published_columns(folder):
    """POWER too: another number of columns does not pass because the noise would broadcast."""
    pandas = pytest.importorskip("pandas")
    for name, columns in (("power", 7), ("power", 3), ("miniboone", 44)):
        np.save(folder / name / "data.npy", draws(N, columns))
        with pytest.raises(ValueError, match=f"{folder / name}"):
            READERS[name][0]()
    pandas.DataFrame(draws(N, 10), columns=["Time", "Meth", "Eth", *"abcdefg"]).to_pickle(
        folder / "gas" / "ethylene_CO.pickle"
    )
    with pytest.raises(ValueError, match="ethylene_CO.pickle to give 8 columns"):
        tables.gas()


@readers
def test_a_variable_that_names_no_folder_of_folders_is_shown(name, folder, monkeypatch):
    for wrong in (folder / "none", folder / name):
        monkeypatch.setenv("CNFLIB_DATA", str(wrong))
        with pytest.raises(ValueError, match=f"Expected CNFLIB_DATA .*got {wrong}"):
            READERS[name][0]()


def test_an_integer_dtype_is_refused(folder):
    np.save(folder / "miniboone" / "data.npy", draws(N, 43))
    with pytest.raises(ValueError, match="dtype"):
        tables.miniboone(dtype=torch.int64)
