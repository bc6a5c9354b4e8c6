"""The page "nets for fields": sizes and diagram are those of the nets; its code asserts the rest."""

import re

import pytest
import torch
from house_rules import ROOT
from torch import nn

from cnflib.nets import MLP, UNet

PAGE = (ROOT / "book/nets.md").read_text(encoding="utf-8")
SIZES = re.findall(r"^\|[^|]*\| `(\w+\(.*\))` \| ([\d,]+) \|$", PAGE, re.M)
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize(("call", "size"), SIZES)
def test_a_net_has_as_many_parameters_as_the_page_says(call, size):
    net = eval(call, {"MLP": MLP, "UNet": UNet, "nn": nn})
    assert f"{sum(p.numel() for p in net.parameters()):,}" == size


def test_there_are_sizes_and_every_piece_of_code_asserts_what_it_shows():
    assert len(SIZES) == 4
    assert all(re.search(r"^assert ", source, re.M) for source in CODE)


def test_the_diagram_is_the_net():
    net, widths, sides = UNet((1, 28, 28)), {}, {}

    def watch(name: str) -> None:
        def note(module, inputs, output):
            widths[name], sides[name] = (inputs[0].shape[1], output.shape[1]), output.shape[-1]

        net.get_submodule(name).register_forward_hook(note)

    names = ["first", "down.1.0", "down.2.1", "middle", "up.2.0", "up.1.0", "grow.0", "up.0.1", "last"]
    for name in names:
        watch(name)
    net(torch.tensor(0.5), torch.randn(1, 1, 28, 28))
    assert [sides[n] for n in ("first", "down.1.0", "middle", "up.1.0", "up.0.1")] == [28, 14, 7, 14, 28]
    assert [widths[n] for n in ("first", "down.1.0", "down.2.1", "grow.0", "last")] == [
        (1, 64),
        (64, 128),
        (128, 128),
        (128, 64),
        (64, 1),
    ]
    rows = [re.sub(r"\s+", " ", row) for row in re.search(r"```text\n(.*?)```", PAGE, re.S)[1].splitlines()]
    for row, said in zip(rows[::2], ("1 → 64", "64 → 128 B B", "128 B B")):
        assert said in row


def test_half_of_the_average_is_as_young_as_the_page_says():
    d = torch.tensor(0.999, dtype=torch.float64)
    half = round((torch.tensor(2.0).log() / -d.log()).item())
    shares = (1 - d) * d ** torch.arange(100_000)
    assert abs(shares[:half].sum() - 0.5) < 1e-3 and abs(half - 0.69 / (1 - d)) < 5
    assert torch.isclose(
        shares.square().sum(), (1 - d) / (1 + d)
    )  # the variance of a mean of independent terms
