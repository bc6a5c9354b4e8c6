"""Laws of training: steps is the plain loop, a resumed run is the uninterrupted one, a crash loses nothing."""

import copy
import io
import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from torch import nn

from cnflib import Standardize
from cnflib.data import split
from cnflib.metrics import Estimate
from cnflib.models import glow, realnvp
from cnflib.train import EMA, EarlyStopping, best_device, load, save, steps

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")),
]
SCHEDULERS = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=50),
    "multi-step": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [7, 15]),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
}
OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 0.05),
    "adamw": lambda p: torch.optim.AdamW(p, 0.05, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
}


class Net(nn.Module):
    """A layer with parameters that train, a buffer that changes, and a tied weight."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.first = self.tied = nn.Linear(3, 3, dtype=dtype)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def forward(self, x):
        self.count += 1
        return self.tied(torch.tanh(self.first(x)))


class Run:
    """All that a training run changes, from the same start each time."""

    def __init__(self, optimizer="adam", scheduler="cosine", device="cpu", dtype=torch.float64):
        self.net = Net(dtype).to(device)
        self.optimizer = OPTIMIZERS[optimizer](self.net.parameters())
        self.scheduler = SCHEDULERS[scheduler](self.optimizer)
        self.ema = EMA(self.net, 0.9)
        self.generator = torch.Generator(device).manual_seed(5)
        self.like = {"device": device, "dtype": dtype}

    def loss(self):
        x = torch.randn(16, 3, generator=self.generator, **self.like)
        return (self.net(x) - x.flip(1)).square().mean()

    def train(self, n, start=0, **options):
        for _, loss in steps(self.loss, self.optimizer, n, ema=self.ema, clip=0.5, start=start, **options):
            self.scheduler.step()
            yield loss

    def objects(self):
        names = "net", "optimizer", "scheduler", "ema", "generator"
        return {name: getattr(self, name) for name in names}

    def weights(self):
        return [
            *self.net.state_dict().values(),
            *self.ema.module.state_dict().values(),
            self.generator.get_state(),
        ]


def assert_same(first, second):
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_steps_is_the_plain_loop_bit_for_bit():
    ours, plain = Run(), Run()
    losses = list(ours.train(20))
    for expected in losses:
        value = plain.loss()
        plain.optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(plain.net.parameters(), 0.5)
        plain.optimizer.step()
        plain.ema.update()
        plain.scheduler.step()
        assert torch.equal(value.detach(), expected)
    assert_same(ours.weights(), plain.weights())


def test_the_loss_falls_and_comes_detached_with_its_step():
    run = Run()
    pairs = list(steps(run.loss, run.optimizer, 110, start=10))
    assert [step for step, _ in pairs] == list(range(10, 110))
    assert all(loss.shape == () and not loss.requires_grad for _, loss in pairs)
    assert sum(loss for _, loss in pairs[-5:]) < 0.7 * sum(loss for _, loss in pairs[:5])
    assert list(steps(run.loss, run.optimizer, 10, start=10)) == []


def test_a_break_leaves_the_optimizer_ready_to_go_on():
    whole, broken = Run(), Run()
    expected = list(whole.train(20))
    losses = []
    for loss in broken.train(20):
        losses.append(loss)
        if len(losses) == 7:
            break
    running = broken.train(20, start=7)
    losses.append(next(running))
    running.close()
    losses += broken.train(20, start=8)
    assert losses == expected
    assert_same(whole.weights(), broken.weights())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, optimizer, scheduler, device):
    whole = Run(optimizer, scheduler, device)
    expected = list(whole.train(30))
    first = Run(optimizer, scheduler, device)
    losses = list(first.train(12))
    save(tmp_path / "run.pt", **first.objects(), step=11)
    list(first.train(40, start=12))
    second = Run(optimizer, scheduler, device)
    second.generator.manual_seed(99)
    state = load(tmp_path / "run.pt", **second.objects())
    losses += second.train(30, start=state["step"] + 1)
    assert losses == expected
    assert_same(whole.weights(), second.weights())


def test_the_default_generator_can_be_saved_too(tmp_path):
    before = torch.get_rng_state()
    save(tmp_path / "rng.pt", rng=torch.default_generator)
    first = torch.rand(3)
    load(tmp_path / "rng.pt", rng=torch.default_generator)
    assert torch.equal(torch.rand(3), first)
    torch.set_rng_state(before)


def test_nothing_draws_from_the_default_generator(tmp_path):
    run = Run()
    before = torch.get_rng_state()
    list(run.train(3))
    save(tmp_path / "run.pt", **run.objects())
    load(tmp_path / "run.pt", **run.objects())
    assert torch.equal(torch.get_rng_state(), before)


net = nn.Linear(2, 1)
adam = torch.optim.Adam(net.parameters())
mistakes = {
    "LBFGS": (
        lambda: net.weight.sum(),
        torch.optim.LBFGS(net.parameters()),
        5,
        "Expected optimizer.*closure",
    ),
    "a class": (lambda: net.weight.sum(), torch.optim.Adam, 5, "Expected optimizer"),
    "the net": (lambda: net.weight.sum(), net, 5, "Expected optimizer"),
    "a tensor": (net.weight.sum().detach(), adam, 5, r"Expected loss to be a function.*lambda: "),
    "another net": (lambda: nn.Linear(2, 1).weight.sum(), adam, 5, r"parameters of the optimizer.*Adam\("),
    "one number a row": (lambda: net.weight[0], adam, 5, r"Expected loss\(\) .*mean"),
    "a float": (lambda: net.weight.sum().item(), adam, 5, r"Expected loss\(\)"),
    "detached": (lambda: net.weight.sum().detach(), adam, 5, r"Expected loss\(\) .*without a gradient"),
    "a float of steps": (lambda: net.weight.sum(), adam, 5.0, "Expected n"),
}


@pytest.mark.parametrize(("loss", "optimizer", "n", "match"), mistakes.values(), ids=mistakes)
def test_what_cannot_be_trained_is_named_before_the_weights_change(loss, optimizer, n, match):
    before = net.weight.clone()
    with pytest.raises(ValueError, match=match):
        next(steps(loss, optimizer, n, progress=False))
    assert torch.equal(net.weight, before)


def test_the_number_of_steps_may_be_numpy_s():
    assert [k for k, _ in steps(lambda: net.weight.sum(), adam, np.int64(3), start=np.int64(1))] == [1, 2]


def test_clip_bounds_the_norm_over_all_parameters():
    weights = [torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:]}], 1.0)
    next(steps(lambda: 30 * weights[0].sum() + 40 * weights[1].sum(), optimizer, 1, clip=0.25))
    assert torch.cat(weights).norm().item() == pytest.approx(0.25, rel=1e-5)
    next(steps(lambda: 0.01 * weights[0].sum(), optimizer, 1, clip=0.25))
    assert torch.cat(weights).norm().item() == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_weights(bad):
    run = Run()
    factors = iter([1.0, 1.0, bad, 1.0])
    seen = []
    with pytest.raises(FloatingPointError, match=r"step 2\b"):
        for _ in steps(lambda: run.loss() * next(factors), run.optimizer, 4):
            seen.append(copy.deepcopy(run.net.first.weight))
    assert torch.equal(run.net.first.weight, seen[-1])


def test_off_the_cpu_the_loss_is_read_every_fifty_steps_only():
    weight = torch.zeros(3, device="meta", requires_grad=True)
    running = steps(lambda: weight.square().sum(), torch.optim.SGD([weight], 0.1), 1000, start=1, clip=None)
    assert [next(running)[0] for _ in range(49)] == list(range(1, 50))
    with pytest.raises(RuntimeError, match="meta"):
        next(running)


def test_some_parameters_may_be_left_without_a_gradient():
    frozen = nn.Linear(2, 1)
    optimizer = torch.optim.SGD([*net.parameters(), *frozen.parameters()], 0.1)
    assert len(list(steps(lambda: frozen.bias.sum(), optimizer, 2, progress=False))) == 2


def test_a_bound_of_zero_on_the_gradient_is_refused():
    with pytest.raises(ValueError, match="clip"):
        next(steps(None, torch.optim.SGD([torch.zeros(1)], 0.1), 5, clip=0))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [(Terminal, None, True), (io.StringIO, None, False), (io.StringIO, True, True), (Terminal, False, False)],
)
def test_the_bar_is_shown_on_a_terminal_or_on_request(monkeypatch, stream, progress, shown):
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    losses = list(Run().train(9, start=4, progress=progress))
    assert ("9/9" in stderr.getvalue()) == ("loss " in stderr.getvalue()) == shown
    assert not shown or "4/9" in stderr.getvalue()
    assert len(losses) == 5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95, 1.0])
def test_ema_is_its_formula(decay, dtype, device):
    run = Run(dtype=dtype, device=device)
    ema = EMA(run.net, decay)
    expected = [p.detach().clone() for p in run.net.parameters()]
    for k in range(25):
        next(steps(run.loss, run.optimizer, 1, ema=ema))
        d = min(decay, (1 + k) / (10 + k))
        expected = [d * e + (1 - d) * p.detach() for e, p in zip(expected, run.net.parameters(), strict=True)]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for average, e in zip(ema.module.parameters(), expected, strict=True):
        assert average.dtype == dtype and average.device == e.device
        assert torch.allclose(average, e, rtol=0, atol=tolerance)
    assert torch.equal(ema.module.count, run.net.count)


def test_ema_of_constant_weights_is_those_weights_and_soon_forgets_the_first():
    net = nn.Linear(2, 2)
    ema = EMA(net, 0.9999)
    with torch.no_grad():
        net.weight.fill_(7.0)
    for _ in range(100):
        ema.update()
    assert torch.allclose(ema.module.weight, net.weight, atol=1e-4)


def test_ema_module_is_apart_from_its_source():
    net = Net()
    ema = EMA(net, 0.5)
    assert not ema.module.training and net.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert all(p.requires_grad for p in net.parameters())
    assert {p.data_ptr() for p in net.parameters()}.isdisjoint(p.data_ptr() for p in ema.module.parameters())
    assert ema.module.tied is ema.module.first


def values_and_answers(values, patience):
    best = EarlyStopping(Net(), patience)
    return best, [best.update(value) for value in values]


def test_it_is_time_to_stop_after_so_many_values_without_a_better_one():
    best, answers = values_and_answers([3.0, 2.0, 2.5, 1.0, 1.0, 1.5, 1.2], 3)
    assert answers == [False] * 6 + [True]
    assert (best.best, best.updates, best.stale) == (1.0, 7, 3)
    assert best.update(torch.tensor(0.5, requires_grad=True)) is False and best.best == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_the_best(bad):
    best, answers = values_and_answers([bad, bad], 2)
    assert answers == [False, True] and best.best == math.inf
    with pytest.raises(ValueError, match="finite.*restore.*2"):
        best.restore()
    assert best.update(1.0) is False and best.update(bad) is False and best.best == 1.0


def test_what_is_restored_is_what_was_best_with_its_buffers():
    net = Net()
    best, x = EarlyStopping(net), torch.ones(2, 3, dtype=torch.float64)
    wanted = net(x).detach()
    for value in (2.0, 2.0, math.nan, 3.0):  # a tie keeps the earlier weights
        best.update(value)
        net(x)
        with torch.no_grad():
            net.first.weight += 1
    assert net.count == 5
    best.restore()
    assert net.count == 1 and torch.equal(net(x), wanted)
    with torch.no_grad():
        net.first.weight += 1
    best.restore()  # again: what is kept was not handed out
    assert torch.equal(net(x), wanted)


def test_weights_that_a_first_batch_sets_up_are_restored_whole():
    flow = glow(dim=3, layers=1, hidden=(4,)).double()
    x = 5 + 3 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = flow.log_prob(x).detach()
    best = EarlyStopping(flow)
    best.update(-wanted.mean())
    fresh = glow(dim=3, layers=1, hidden=(4,)).double()
    fresh.load_state_dict(best.state_dict()["weights"])
    assert torch.equal(fresh.log_prob(x), wanted)


def test_an_average_has_best_weights_too():
    net = Net()
    ema = EMA(net)
    best = EarlyStopping(ema.module, patience=1)
    wanted = copy.deepcopy(ema.module.state_dict())
    best.update(1.0)
    with torch.no_grad():
        net.first.weight += 1
    ema.update()
    assert best.update(2.0)
    best.restore()
    assert all(torch.equal(a, b) for a, b in zip(ema.module.state_dict().values(), wanted.values()))


def test_a_search_for_the_best_is_resumed_where_it_was(tmp_path):
    values = [3.0, 1.0, 2.0, 1.5, 1.4]

    def search(best, values):
        for value in values:
            stop = best.update(value)
            with torch.no_grad():
                best.module.first.weight += 1
        return stop

    whole, half, resumed = (EarlyStopping(Net(), patience=3) for _ in range(3))
    assert search(whole, values)
    search(half, values[:3])
    save(tmp_path / "run.pt", net=half.module, best=half)
    load(tmp_path / "run.pt", net=resumed.module, best=resumed)
    assert search(resumed, values[3:])
    for best in (whole, resumed):
        best.restore()
    assert (resumed.best, resumed.updates, resumed.stale) == (whole.best, whole.updates, whole.stale)
    weights = zip(resumed.module.parameters(), whole.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_a_patience_of_nothing_is_refused():
    with pytest.raises(ValueError, match="patience"):
        EarlyStopping(Net(), patience=0)


@pytest.mark.parametrize(
    "module", [Net().parameters(), None, Net, [Net()]], ids=["generator", "None", "class", "list"]
)
@pytest.mark.parametrize("keeper", [EarlyStopping, EMA])
def test_what_keeps_weights_wants_a_module(keeper, module):
    with pytest.raises(ValueError, match=r"module.*torch.nn.Module.*flow.parameters\(\)"):
        keeper(module)


def test_an_estimate_is_taken_by_its_value_and_several_numbers_are_refused():
    best = EarlyStopping(Net())
    best.update(Estimate(1.5, 0.1))
    best.update(torch.tensor([1.25], requires_grad=True))
    assert best.best == 1.25
    for value in (torch.ones(2), None, "a"):
        with pytest.raises(ValueError, match="value to be one number"):
            best.update(value)
    assert best.updates == 2


def test_few_rows_are_learned_by_heart_and_the_best_weights_are_from_before():
    """178 wines of 13 measurements: the density of unseen rows falls to thousands of nats below the best one."""
    (train,), (validation,), (test,) = split(
        torch.as_tensor(load_wine().data).float(), fractions=(0.6, 0.2, 0.2)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = realnvp(dim=13).after(Standardize.fit(train))
    nll = lambda rows: -flow.log_prob(rows).mean()
    best, stopped, curve = EarlyStopping(flow, patience=4), False, []
    for step, _ in steps(lambda: nll(train), torch.optim.Adam(flow.parameters(), 3e-3), 120):
        if step % 5 == 0:
            with torch.no_grad():
                curve.append(nll(validation).item())
            stopped = stopped or best.update(curve[-1])
    with torch.no_grad():
        last = nll(test).item()
        best.restore()
        assert stopped and nll(validation).item() == pytest.approx(min(curve), abs=1e-3)
        assert nll(test).item() < min(25, last) and max(curve) > 1000  # the last step's own value is erratic


def test_a_round_trip_returns_plain_values_and_restores_objects(tmp_path):
    values = {
        "step": 7,
        "name": "maf",
        "best": 1.5,
        "none": None,
        "losses": [1.0, 2.0],
        "x": torch.arange(3),
        "nested": {"pair": (1, "a"), "t": torch.ones(2, dtype=torch.float64)},
    }
    run = Run()
    list(run.train(5))
    save(tmp_path / "new" / "folder" / "run.pt", net=run.net, **values)
    fresh = Run()
    state = load(tmp_path / "new" / "folder" / "run.pt", net=fresh.net)
    assert_same(run.net.state_dict().values(), fresh.net.state_dict().values())
    assert state.keys() == values.keys()
    assert torch.equal(state.pop("x"), values.pop("x"))
    assert torch.equal(state["nested"].pop("t"), values["nested"].pop("t"))
    assert state == values
    assert os.listdir(tmp_path / "new" / "folder") == ["run.pt"]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    save(path, step=1)

    def half(states, file):
        stream = io.BytesIO()
        torch_save(states, stream)
        file = open(file, "wb") if not hasattr(file, "write") else file  # noqa: SIM115
        file.write(stream.getvalue()[: stream.tell() // 2])
        file.flush()
        raise OSError("No space left on device")

    torch_save = torch.save
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        save(path, step=2)
    assert load(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["run.pt"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.pt"
    save(path, step=1)
    script = f"""
        import os, torch
        from cnflib.train import save
        def killed(states, file):
            stream = file if hasattr(file, "write") else open(file, "wb")
            stream.write(b"half")
            stream.flush()
            os._exit(9)
        torch.save = killed
        save({str(path)!r}, step=2)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, **here()}, check=False
    )
    assert done.returncode == 9
    assert load(path) == {"step": 1}


def here():
    return {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


UNREADABLE = {
    "NumPy": np.float64(1.0),
    "module in a list": [nn.Linear(1, 1)],
    "function": lambda: 0,
    "object": object(),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_could_not_be_read_back_is_never_written(tmp_path, kind):
    path = tmp_path / "run.pt"
    save(path, step=1)
    value = UNREADABLE[kind]
    with pytest.raises(ValueError, match="plain values in save.'run.pt'") as caught:
        save(path, step=2, culprit=value, net=nn.Linear(1, 1))
    assert f"in culprit ({type(value).__name__}). Turn" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert load(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["run.pt"]


def test_what_is_saved_has_a_name(tmp_path):
    with pytest.raises(ValueError, match=r"by name, like flow=flow; got Linear"):
        save(tmp_path / "run.pt", nn.Linear(1, 1))
    assert not os.listdir(tmp_path)


def test_loading_names_what_is_missing_and_restores_nothing(tmp_path):
    run, path = Run(), tmp_path / "run.pt"
    save(path, net=run.net, step=3)
    list(run.train(2))
    trained = [w.clone() for w in run.weights()]
    with pytest.raises(ValueError, match="Expected ema"):
        load(path, net=run.net, optimizer=run.optimizer, ema=run.ema)
    with pytest.raises(ValueError, match=r"Expected step in .*load\(path, …\)\['step'\]"):
        load(path, net=run.net, step=3)
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        load(tmp_path / "none.pt", net=run.net)
    assert_same(run.weights(), trained)


@pytest.mark.parametrize("wrong", ["module", "optimizer", "ema", "generator"])
def test_what_does_not_fit_is_named_and_nothing_is_restored(tmp_path, wrong):
    """All that came before it, and what was half overwritten, is put back bit for bit."""
    save(tmp_path / "run.pt", **{**(saved := Run()).objects(), "other": nn.Linear(2, 2)})
    if wrong == "generator":
        save(tmp_path / "run.pt", **saved.objects(), other=torch.zeros(3, dtype=torch.uint8))
    run = Run()
    list(run.train(3))
    unfit = {
        "module": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)),
        "optimizer": torch.optim.Adam(nn.Linear(2, 2).parameters()),
        "ema": EMA(nn.Linear(2, 2)),
        "generator": torch.Generator(),
    }[wrong]
    objects = {**run.objects(), "other": unfit}
    copied = lambda: {name: torch_bytes(value) for name, value in objects.items()}
    before = copied()
    with pytest.raises(ValueError, match="(?s)Expected other to take what .*Nothing was restored"):
        load(tmp_path / "run.pt", **objects)
    assert copied() == before


def torch_bytes(value):
    stream = io.BytesIO()
    torch.save(value.get_state() if isinstance(value, torch.Generator) else value.state_dict(), stream)
    return stream.getvalue()


def test_a_module_half_overwritten_is_put_back(tmp_path):
    net, path = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), tmp_path / "run.pt"
    save(path, net=nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)))
    before = [w.clone() for w in net.parameters()]
    with pytest.raises(ValueError, match="(?s)Expected net to take what .*size mismatch"):
        load(path, net=net)
    assert_same(net.parameters(), before)


OTHER_FILES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "module": lambda path: torch.save(nn.Linear(1, 1), path),
    "tensor": lambda path: torch.save(torch.ones(3), path),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path, kind):
    save(path := tmp_path / "run.pt", step=1)
    OTHER_FILES[kind](path)
    with pytest.raises(ValueError, match=f"Expected {path} to be a whole file written by save") as caught:
        load(path)
    assert "weights_only" not in str(caught.value)


def test_a_state_dict_alone_is_told_from_a_checkpoint(tmp_path):
    net = nn.Linear(1, 1)
    torch.save(net.state_dict(), path := tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"got a file of weight, bias.*load_state_dict\(torch\.load"):
        load(path, net=net)


def test_best_device_can_hold_float64():
    device = best_device()
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.ones(1, dtype=torch.float64, device=device).sum() == 1
