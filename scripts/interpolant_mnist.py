"""An interpolant on MNIST: what an hour of one CPU thread gives in bits per dimension.

    python scripts/interpolant_mnist.py

reads MNIST from $CNFLIB_DATA/mnist, or downloads it once (cnflib.data.mnist). A U-Net learns the velocity between noise
and images by regression; its flow is then judged by its density. A checkpoint is written every minute in one piece;
the same command goes on from it, on a CPU with ``--steps`` to the same numbers bit for bit (with ``--seconds``, the
learning rate follows the clock). At the end the averaged weights are judged on all 10,000 test images, or ``--images``
spread over them, with K draws of the dequantisation noise for each; the result goes to
benchmarks/results/interpolant_mnist.json, and samples to samples.png beside the checkpoint. A GPU has room for a larger
net: --channels 64 --patch 1 --sizes 3 --batch 256.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from mnist import CLASSES, DIMS, EVENT, LEVELS, check_settings, images, labels, schedule
from torch import Generator, Tensor, nn
from torch.special import ndtr, ndtri
from tqdm import tqdm

from benchmarks.harness import machine, record
from cnflib import Bijection, Chain, Flow, StandardNormal
from cnflib.continuous import CNF, Hutchinson
from cnflib.discrete import Dequantize, Logit, mean_log_prob
from cnflib.interpolants import Linear, Trigonometric, velocity_loss
from cnflib.metrics import Estimate, bits_per_dim
from cnflib.nets import UNet
from cnflib.ode import Adaptive
from cnflib.train import EMA, best_device, load, save, steps

ROOT = Path(__file__).resolve().parents[1]
PATHS = {"linear": Linear, "trigonometric": Trigonometric}
PUBLISHED = {"FFJORD, multiscale": 0.99, "Glow": 1.05}  # bits/dim, Grathwohl et al., 2018
SETTINGS = (
    *("path", "front", "power", "classes", "channels", "sizes", "blocks", "patch", "attention"),
    *("seed", "batch", "rate", "decay", "steps", "seconds"),
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600, help="training time, over all runs")
    parser.add_argument("--steps", type=int, help="number of steps instead")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3, help="largest learning rate")
    parser.add_argument("--decay", type=float, default=0.999, help="of the averaged weights")
    parser.add_argument("--path", choices=PATHS, default="trigonometric", help="the interpolant")
    parser.add_argument("--front", choices=("histogram", "logit"), default="histogram")
    parser.add_argument(
        "--power", type=float, default=2.0, help="p: 1 - t = (1 - u)^p, u uniform; 1 for uniform times"
    )
    parser.add_argument("--classes", action="store_true", help="condition on the label")
    parser.add_argument("--channels", type=int, default=32, help="channels of the finest image")
    parser.add_argument("--sizes", type=int, default=2, help="sizes of images, each half of the one before")
    parser.add_argument("--blocks", type=int, default=2, help="residual blocks at each size, down and up")
    parser.add_argument("--patch", type=int, default=2, help="side of the squares of pixels seen as one")
    parser.add_argument("--attention", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--images", type=int, default=10_000, help="test images to judge, spread evenly")
    parser.add_argument("--draws", type=int, default=1, help="K, draws of the noise for each test image")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of the solver, absolute and relative")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=60, help="seconds between checkpoints")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "_build" / "interpolant_mnist", help="folder of the checkpoint"
    )
    return parser.parse_args(argv)


class Histogram(Bijection):
    r"""Points of [0, 1] to the real line, so that over all pixels of the images they become standard normals.

    .. math:: z = \Phi^{-1}(F(x)), \qquad \log |dz / dx| = \log F'(x) - \log \varphi(z)

    F is linear in each of the 256 cells of a grey level and grows there by its share of the pixels.
    """

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        counts = torch.bincount(pixels.flatten().long(), minlength=LEVELS).double() + 1
        self.register_buffer("mass", counts / counts.sum())
        self.register_buffer("below", self.mass.cumsum(0) - self.mass)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        y = LEVELS * x.double()
        k = y.long().clamp(0, LEVELS - 1)
        z = ndtri(self.below[k] + self.mass[k] * (y - k))
        return z.to(x), self._logdet(k, z).to(x)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        p = ndtr(z.double())
        k = torch.searchsorted(self.below, p, right=True) - 1
        x = (k + ((p - self.below[k]) / self.mass[k]).clamp(0, 1)) / LEVELS
        return x.to(z), -self._logdet(k, z.double()).to(z)

    def _logdet(self, k: Tensor, z: Tensor) -> Tensor:
        slopes = (LEVELS * self.mass[k]).log() + 0.5 * (z.square() + math.log(2 * math.pi))
        return slopes.flatten(1).sum(1)


def build(args: argparse.Namespace) -> tuple[UNet, Chain]:
    """The field, the same weights each time, and the fixed map from pixels of 0 ... 255 to where it lives."""
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        field = UNet(
            EVENT,
            channels=args.channels,
            multipliers=(1, *[2] * (args.sizes - 1)),
            blocks=args.blocks,
            attention=args.attention,
            context=CLASSES if args.classes else 0,
            patch=args.patch,
        )
    front = Histogram(images("train")) if args.front == "histogram" else Logit(1e-6)
    return field.to(best_device()), Chain(Dequantize(LEVELS), front).to(best_device())


def train(args: argparse.Namespace) -> tuple[UNet, dict[str, object]]:
    """Train to the end of the budget, from the checkpoint if there is one; the averaged field and what it took."""
    device, path = best_device(), args.out / "checkpoint.pt"
    data, given = images("train").to(device), labels("train") if args.classes else None
    generator = torch.Generator(device).manual_seed(args.seed)
    field, front = build(args)
    interpolant = PATHS[args.path]()

    def loss() -> Tensor:
        """The squared error of the velocity at random times, per pixel."""
        rows = torch.randint(len(data), (args.batch,), generator=generator, device=device)
        x1 = front.encode(data[rows].float(), generator=generator)
        x0 = torch.randn(x1.shape, generator=generator, device=device)
        u = torch.rand(args.batch, generator=generator, device=device)
        c = None if given is None else given[rows.cpu()].to(device)
        t = 1 - (1 - u) ** args.power
        return velocity_loss(field, interpolant, x0, x1, t, context=c).mean() / DIMS

    optimizer, ema = torch.optim.Adam(field.parameters(), lr=args.rate), EMA(field, args.decay)
    settings = {name: getattr(args, name) for name in SETTINGS}
    objects = {"field": field, "optimizer": optimizer, "ema": ema, "generator": generator}
    step, seconds, cpu, curve = -1, 0.0, 0.0, []
    if path.exists():
        check_settings(path, settings)
        saved = load(path, **objects)
        step, seconds, cpu, curve = (saved[name] for name in ("step", "seconds", "cpu", "curve"))
        print(f"from {path}: step {step + 1}, {seconds:.0f} s", flush=True)
    done = lambda: (step + 1) / args.steps if args.steps else seconds / args.seconds  # noqa: E731
    written, clock, busy = seconds, time.perf_counter(), time.process_time()
    mean = curve[-1]["loss"] if curve else None
    bar = tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")
    n = args.steps or sys.maxsize
    loop = steps(loss, optimizer, n=n, ema=ema, clip=1.0, start=step + 1, progress=False)
    while done() < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * schedule(step + 1, done())
        step, value = next(loop)
        seconds, clock = seconds + time.perf_counter() - clock, time.perf_counter()
        cpu, busy = cpu + time.process_time() - busy, time.process_time()
        mean = value.item() if mean is None else 0.98 * mean + 0.02 * value.item()
        bar.update(min(100, 100 * done()) - bar.n)
        bar.set_postfix_str(f"step {step}, loss {mean:.4f} a pixel", refresh=False)
        if seconds - written >= args.every or done() >= 1:
            curve.append({"seconds": seconds, "step": step, "loss": mean})
            plain = {"step": step, "seconds": seconds, "cpu": cpu, "curve": curve, "settings": settings}
            save(path, **objects, **plain)
            written, clock, busy = (
                seconds,
                time.perf_counter(),
                time.process_time(),
            )  # writing is not training
    bar.close()
    return ema.module, {"steps": step + 1, "seconds": seconds, "cpu seconds": cpu, "training": curve}


def flow_of(field: nn.Module, front: Chain, tolerance: float) -> Flow:
    """The law of the field's ordinary differential equation, in pixels of 0 ... 255."""
    cnf = CNF(field, Hutchinson(), Adaptive(rtol=tolerance, atol=tolerance))
    return Flow(cnf, StandardNormal(EVENT)).after(front)


@torch.no_grad()
def judge(field: nn.Module, args: argparse.Namespace) -> dict[str, object]:
    """Bits per dimension of test images, K draws of the noise for each, and what half the tolerance changes."""
    device, (_, front) = best_device(), build(args)
    y, given = images("test").float(), labels("test") if args.classes else None
    spread = torch.arange(min(args.images, len(y))) * len(y) // min(args.images, len(y))
    y, given = y[spread], None if given is None else given[spread].to(device)

    def values(count: int, tolerance: float) -> Tensor:
        generator = torch.Generator(device).manual_seed(args.seed)
        flow = flow_of(field, front, tolerance)
        chunks = tqdm(range(0, count, 50), desc=f"test, K = {args.draws}, tolerance {tolerance:g}")
        rows = (slice(k, min(k + 50, count)) for k in chunks)
        found = [
            mean_log_prob(
                flow, y[r].to(device), args.draws, None if given is None else given[r], generator=generator
            )
            for r in rows
        ]
        return torch.cat(found)

    calls = []
    hook = field.register_forward_hook(lambda *_: calls.append(1))
    start = time.perf_counter()
    result = values(len(y), args.tolerance)
    took, nfe = time.perf_counter() - start, len(calls) / (args.draws * -(-len(y) // 50))
    hook.remove()
    few = min(len(y), 50)
    finer = values(few, args.tolerance / 2)
    change = bits_per_dim(finer, DIMS).value - bits_per_dim(result[:few], DIMS).value
    return {
        "bits_per_dim": list(bits_per_dim(result, DIMS)),
        "images": len(y),
        "draws": args.draws,
        "tolerance": args.tolerance,
        "change at half the tolerance": change,
        "nfe": nfe,
        "judging seconds": took,
    }


@torch.no_grad()
def draw_samples(field: nn.Module, args: argparse.Namespace, rows: int = 5, columns: int = 10) -> int:
    """A grid of samples, with labels 0 ... 9 in its columns if the field sees them; the evaluations it took."""
    import matplotlib.pyplot as plt

    device, (_, front) = best_device(), build(args)
    generator, calls = torch.Generator(device).manual_seed(args.seed), []
    context = torch.eye(CLASSES, device=device).repeat(rows, 1) if args.classes else None
    hook = field.register_forward_hook(lambda *_: calls.append(1))
    y = flow_of(field, front, args.tolerance).sample(rows * columns, context, generator)
    hook.remove()
    grid = y.cpu().reshape(rows, columns, 28, 28).transpose(1, 2).reshape(28 * rows, 28 * columns)
    plt.imsave(args.out / "samples.png", grid.numpy(), cmap="gray_r", vmin=0, vmax=LEVELS - 1)
    return len(calls)


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    print(machine())
    field, took = train(args)
    nfe = draw_samples(field, args)
    found = judge(field, args)
    parameters = sum(p.numel() for p in field.parameters())
    value = Estimate(*found["bits_per_dim"])
    print(
        f"{value} bits/dim, K = {args.draws}, {found['images']} images, {found['nfe']:.0f} evaluations, "
        f"{parameters} parameters, {took['steps']} steps, {took['seconds']:.0f} s"
    )
    settings = {name: getattr(args, name) for name in SETTINGS}
    table = {**found, "nfe of samples": nfe, "parameters": parameters, "published": PUBLISHED}
    record("interpolant_mnist", {"device": str(best_device()), "settings": settings, **table, **took})


if __name__ == "__main__":
    main()
