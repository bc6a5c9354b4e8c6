"""The script of Glow on MNIST: it trains, resumes to the same numbers, judges and records, here on tiny images."""

import gzip
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script with forty images of noise for data, and what it records in a dict."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 40), ("t10k", 6)):
        pixels = np.random.default_rng(0).integers(256, size=n * 784, dtype=np.uint8)
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(bytes(16) + pixels.tobytes())
    monkeypatch.setenv("CNFLIB_DATA", str(tmp_path))
    module = importlib.import_module("glow_mnist")
    module.recorded = {}
    monkeypatch.setattr(module, "record", lambda name, tables: module.recorded.update({name: tables}))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(sys, "stderr", open(tmp_path / "err", "w"))
    return module


def run(script, out, *more):
    tiny = [
        "--layers",
        "1",
        "--hidden",
        "4",
        "--batch",
        "4",
        "--draws",
        "2",
        "--every",
        "0",
        "--out",
        str(out),
    ]
    script.main([*tiny, *more])
    return script.recorded["glow_mnist"]


def test_it_records_what_it_found_and_draws_samples(script, tmp_path):
    table = run(script, tmp_path / "out", "--steps", "3")
    assert table["steps"] == 3 and table["draws"] == 2 and table["parameters"] > 0
    assert 6 < table["bits_per_dim"][0] < 12 and len(table["training"]) == 3
    assert (tmp_path / "out" / "samples.png").exists()


def test_an_interrupted_run_resumes_to_the_same_numbers(script, tmp_path, monkeypatch):
    whole = run(script, tmp_path / "whole", "--steps", "4")
    saved = []

    def stop_at_the_second(path, **objects):
        real(path, **objects)
        saved.append(objects["step"])
        if len(saved) == 2:
            raise KeyboardInterrupt

    real = script.save
    monkeypatch.setattr(script, "save", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(script, tmp_path / "parts", "--steps", "4")
    parts = run(script, tmp_path / "parts", "--steps", "4")
    assert saved == [0, 1, 2, 3]
    assert parts["bits_per_dim"] == whole["bits_per_dim"]
    curves = [[row["bits_per_dim"] for row in table["training"]] for table in (parts, whole)]
    assert curves[0] == curves[1]
    weights = [torch.load(tmp_path / d / "checkpoint.pt")["flow"] for d in ("whole", "parts")]
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))


def test_a_budget_in_seconds_ends_the_run(script, tmp_path):
    table = run(script, tmp_path / "out", "--seconds", "0.5")
    assert table["steps"] > 1 and 0.5 <= table["seconds"] < 5


def test_a_checkpoint_of_other_settings_is_refused(script, tmp_path):
    run(script, tmp_path / "out", "--steps", "1")
    with pytest.raises(SystemExit, match=r"other settings \{'steps': \(1, 2\)\}.*--out"):
        run(script, tmp_path / "out", "--steps", "2")


def test_missing_data_is_named(script, tmp_path, monkeypatch):
    monkeypatch.delenv("CNFLIB_DATA")
    with pytest.raises(SystemExit, match="CNFLIB_DATA"):
        run(script, tmp_path / "out", "--steps", "1")
