"""Glow on MNIST: what an hour of two CPU threads, or a few minutes of a GPU, gives in bits per dimension.

    python scripts/glow_mnist.py

reads MNIST from $CNFLIB_DATA/mnist, or downloads it once (cnflib.data.mnist). A checkpoint is written every minute in
one piece; the same command goes on from it, on a CPU with ``--steps`` to the same numbers bit for bit (with
``--seconds``, the learning rate follows the clock). At the end the averaged weights are judged on all 10,000 test
images, with K draws of the dequantisation noise for each; the result goes to benchmarks/results/glow_mnist.json, and
samples at four temperatures to samples.png beside the checkpoint.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from mnist import DIMS, EVENT, LEVELS, check_settings, images, schedule
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.harness import machine, record
from cnflib import Chain, Flow, tempered
from cnflib.discrete import Dequantize, Logit, mean_log_prob
from cnflib.metrics import Estimate, bits_per_dim
from cnflib.models import glow
from cnflib.train import EMA, best_device, load, save, steps

ROOT = Path(__file__).resolve().parents[1]
TEMPERATURES = (0.6, 0.7, 0.8, 1.0)
SETTINGS = ("layers", "hidden", "scales", "alpha", "seed", "batch", "rate", "steps", "seconds")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600, help="training time, over all runs")
    parser.add_argument("--steps", type=int, help="number of steps instead")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3, help="largest learning rate")
    parser.add_argument("--layers", type=int, default=8, help="steps of the flow at each scale")
    parser.add_argument("--hidden", type=int, default=64, help="channels of the conditioners")
    parser.add_argument("--scales", type=int, default=3, help="28, 14 and 7 pixels a side")
    parser.add_argument(
        "--alpha", type=float, default=1e-6, help="margin of the logit of the pixels; 0 for none"
    )
    parser.add_argument("--draws", type=int, default=8, help="K, draws of the noise for each test image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=60, help="seconds between checkpoints")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "_build" / "glow_mnist", help="folder of the checkpoint"
    )
    return parser.parse_args(argv)


def build(args: argparse.Namespace) -> Flow:
    """Pixels of 0 ... 255, dequantised (and, if asked for, through a logit), under Glow; the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        flow = glow(shape=EVENT, layers=args.layers, hidden=(args.hidden,) * 2, scales=args.scales)
    front = [Dequantize(LEVELS), Logit(args.alpha)] if args.alpha else [Dequantize(LEVELS)]
    # Convolutions on a CPU are faster by a third with the channels last in memory.
    return flow.after(Chain(*front)).to(best_device(), memory_format=torch.channels_last)


def bits(log_prob: Tensor) -> Tensor:
    return -log_prob.mean() / (DIMS * math.log(2))


def train(args: argparse.Namespace) -> tuple[nn.Module, dict[str, object]]:
    """Train to the end of the budget, from the checkpoint if there is one; the averaged flow and what it took."""
    device, path = best_device(), args.out / "checkpoint.pt"
    data = images("train").to(device)
    generator = torch.Generator(device).manual_seed(args.seed)

    def draw(n: int) -> Tensor:
        rows = torch.randint(len(data), (n,), generator=generator, device=device)
        return data[rows].float()

    flow = build(args)
    settings = {name: getattr(args, name) for name in SETTINGS}
    with torch.no_grad():
        flow.log_prob(draw(512), generator=generator)  # sets every ActNorm
    optimizer, ema = torch.optim.Adam(flow.parameters(), lr=args.rate), EMA(flow)
    objects = {"flow": flow, "optimizer": optimizer, "ema": ema, "generator": generator}
    step, seconds, curve = -1, 0.0, []
    if path.exists():
        check_settings(path, settings)
        saved = load(path, **objects)
        step, seconds, curve = saved["step"], saved["seconds"], saved["curve"]
        print(f"from {path}: step {step + 1}, {seconds:.0f} s", flush=True)
    done = lambda: (step + 1) / args.steps if args.steps else seconds / args.seconds  # noqa: E731
    written, clock = seconds, time.perf_counter()
    mean = curve[-1]["bits_per_dim"] if curve else None
    bar = tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")
    loop = steps(
        lambda: bits(flow.log_prob(draw(args.batch), generator=generator)),
        optimizer,
        n=args.steps or sys.maxsize,
        ema=ema,
        clip=1.0,
        start=step + 1,
        progress=False,
    )
    while done() < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * schedule(step + 1, done())
        step, loss = next(loop)
        seconds, clock = seconds + time.perf_counter() - clock, time.perf_counter()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        bar.update(min(100, 100 * done()) - bar.n)
        bar.set_postfix_str(f"step {step}, {mean:.3f} bits/dim", refresh=False)
        if seconds - written >= args.every or done() >= 1:
            curve.append({"seconds": seconds, "step": step, "bits_per_dim": mean})
            save(path, **objects, step=step, seconds=seconds, curve=curve, settings=settings)
            written, clock = seconds, time.perf_counter()  # writing is not training
    bar.close()
    return ema.module, {"steps": step + 1, "seconds": seconds, "training": curve}


@torch.no_grad()
def judge(flow: nn.Module, draws: int, seed: int) -> Estimate:
    """Bits per dimension of the test images, K draws of the noise for each."""
    device = best_device()
    generator = torch.Generator(device).manual_seed(seed)
    chunks = tqdm(images("test").split(500), desc=f"test, K = {draws}")
    values = [mean_log_prob(flow, y.to(device).float(), draws, generator=generator) for y in chunks]
    return bits_per_dim(torch.cat(values), DIMS)


@torch.no_grad()
def draw_samples(flow: nn.Module, path: Path, seed: int, columns: int = 12) -> None:
    """A row of samples for each temperature."""
    import matplotlib.pyplot as plt

    device = best_device()
    rows = []
    for temperature in TEMPERATURES:
        generator = torch.Generator(device).manual_seed(seed)
        y = tempered(flow, temperature).sample(columns, generator=generator)
        rows.append(torch.cat([image[0] for image in y.cpu()], 1))
    plt.imsave(path, torch.cat(rows).numpy(), cmap="gray_r", vmin=0, vmax=LEVELS - 1)


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    print(machine())
    flow, took = train(args)
    result = judge(flow, args.draws, args.seed)
    draw_samples(flow, args.out / "samples.png", args.seed)
    parameters = sum(p.numel() for p in flow.parameters())
    print(
        f"{result} bits/dim, K = {args.draws}, {parameters} parameters, {took['steps']} steps, {took['seconds']:.0f} s"
    )
    settings = {name: getattr(args, name) for name in SETTINGS}
    table = {"bits_per_dim": list(result), "draws": args.draws, "parameters": parameters}
    record("glow_mnist", {"device": str(best_device()), "settings": settings, **table, **took})


if __name__ == "__main__":
    main()
