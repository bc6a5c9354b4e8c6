"""The scripts on MNIST: they train, resume to the same numbers, judge and record, here on a few images of noise."""

import gzip
import importlib
import sys

import numpy as np
import pytest
import torch

NET = [
    "--channels",
    "8",
    "--sizes",
    "1",
    "--blocks",
    "1",
    "--no-attention",
    "--images",
    "3",
    "--tolerance",
    "1e-2",
]
TINY = {"glow_mnist": ["--layers", "1", "--hidden", "4"], "interpolant_mnist": NET}


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Forty images of noise and their labels in the place of MNIST."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 40), ("t10k", 6)):
        draw = np.random.default_rng(0)
        pixels, digits = draw.integers(256, size=n * 784), draw.integers(10, size=n)
        for name, sizes, values in (("images-idx3", [n, 28, 28], pixels), ("labels-idx1", [n], digits)):
            header = np.array([0x800 + len(sizes), *sizes], ">i4").tobytes()
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(header + values.astype(np.uint8).tobytes())
    monkeypatch.setenv("CNFLIB_DATA", str(tmp_path))


@pytest.fixture(params=TINY)
def script(request, mnist, tmp_path, monkeypatch):
    """A script, and what it records in a dict."""
    return loaded(request.param, tmp_path, monkeypatch)


@pytest.fixture
def interpolant(mnist, tmp_path, monkeypatch):
    return loaded("interpolant_mnist", tmp_path, monkeypatch)


def loaded(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    module.recorded = {}
    monkeypatch.setattr(module, "record", lambda name, tables: module.recorded.update({name: tables}))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(sys, "stderr", open(tmp_path / "err", "w"))
    return module


def run(script, out, *more):
    tiny = ["--batch", "4", "--draws", "2", "--every", "0", "--out", str(out)]
    script.main([*TINY[script.__name__], *tiny, *more])
    return script.recorded[script.__name__]


def test_it_records_what_it_found_and_draws_samples(script, tmp_path):
    table = run(script, tmp_path / "out", "--steps", "3")
    assert table["steps"] == 3 and table["draws"] == 2 and table["parameters"] > 0
    assert 6 < table["bits_per_dim"][0] < 12 and len(table["training"]) == 3
    assert table["settings"]["steps"] == 3 and table["device"] == "cpu"
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
    curves = [[{**row, "seconds": 0} for row in table["training"]] for table in (parts, whole)]
    assert curves[0] == curves[1]
    averaged = [torch.load(tmp_path / d / "checkpoint.pt")["ema"]["module"] for d in ("whole", "parts")]
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in averaged), strict=True))


def test_a_budget_in_seconds_ends_the_run(script, tmp_path):
    table = run(script, tmp_path / "out", "--seconds", "0.5")
    assert table["steps"] > 1 and 0.5 <= table["seconds"] < 5


def test_a_checkpoint_of_other_settings_is_refused(script, tmp_path):
    run(script, tmp_path / "out", "--steps", "1")
    with pytest.raises(SystemExit, match=r"other settings \{'steps': \(1, 2\)\}.*--out"):
        run(script, tmp_path / "out", "--steps", "2")


def test_missing_data_is_named(script, tmp_path):
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz"):
        run(script, tmp_path / "out", "--steps", "1")


# What only the interpolant has.


def test_labels_reach_the_field(interpolant, tmp_path):
    plain = run(interpolant, tmp_path / "plain", "--steps", "2")
    given = run(interpolant, tmp_path / "given", "--steps", "2", "--classes")
    assert given["settings"]["classes"] and given["parameters"] > plain["parameters"]
    field, _ = interpolant.build(interpolant.arguments([*NET, "--classes"]))
    assert field.context == 10


def test_the_result_says_how_it_was_judged(interpolant, tmp_path):
    table = run(interpolant, tmp_path / "out", "--steps", "1")
    assert (table["images"], table["draws"], table["tolerance"]) == (3, 2, 1e-2)
    assert table["nfe"] >= 7 and table["nfe of samples"] >= 7 and table["judging seconds"] > 0
    assert abs(table["change at half the tolerance"]) < 0.1
    assert table["published"] == {"FFJORD, multiscale": 0.99, "Glow": 1.05}


@pytest.mark.parametrize("front", ["histogram", "logit"])
def test_the_fixed_map_is_invertible_with_its_log_determinant(interpolant, front):
    _, fixed = interpolant.build(interpolant.arguments(["--channels", "8", "--front", front]))
    bijection = fixed.layers[1]
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, logdet = bijection(x)
    again, back = bijection.decode_and_logdet(z)
    torch.testing.assert_close(again, x)
    torch.testing.assert_close(back, -logdet)
    step = 1e-7
    slopes = (bijection(x + step)[0] - bijection(x - step)[0]) / (2 * step)
    torch.testing.assert_close(slopes.log().flatten(1).sum(1), logdet, rtol=1e-5, atol=1e-5)


def test_pixels_become_standard_normals_by_their_histogram(interpolant):
    """A field of zeros then has the entropy of a pixel, in bits; four grey levels alike have two."""
    pixels = torch.tensor([0, 60, 61, 255]).repeat(5000)
    x = (pixels + torch.rand(20_000, generator=torch.Generator().manual_seed(0))).double() / 256
    z, logdet = interpolant.Histogram(pixels)(x[:, None])
    assert abs(z.mean()) < 4 / 20_000**0.5 and abs(z.var() - 1) < 4 * (2 / 20_000) ** 0.5
    bits = 8 - (interpolant.StandardNormal(1).double().log_prob(z) + logdet).mean() / np.log(2)
    assert bits.item() == pytest.approx(2, abs=0.03)  # every level counts once more than it was seen
