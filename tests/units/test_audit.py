"""The audit passes every member of the registry and catches each of a set of wrong implementations."""

import math

import pytest
import torch
from registry import Member, bijections, built, coupling, flows, points, rng, seeded
from torch import nn

from cnflib import Bijection, Chain, Flow, Inverse, Standardize, StandardNormal
from cnflib.audit import AuditError, Finding, Report, audit_bijection, audit_gradients
from cnflib.continuous import CNF, Exact, Gaussian, Hutchinson
from cnflib.discrete import ActNorm, Additive, Affine, Coupling, Flatten, Logit
from cnflib.models import realnvp
from cnflib.ode import Adaptive, Fixed, SolveError, TorchDiffEq

x, _ = points(Member(None), dtype=torch.float32)


@pytest.mark.parametrize("name", bijections)
def test_every_member_passes(name):
    member = bijections[name]
    one, context = points(member, 1, torch.float32)
    report = audit_bijection(built(member, torch.float32), one, context=context, tolerance=1e-5)
    report.raise_for_faults()
    assert not report.faults and len(report.findings) == 15


@pytest.mark.parametrize("build", [bijections["Chain"].build, bijections["CNF hutchinson"].build])
def test_a_fresh_flow_passes_too(build):
    with seeded():
        audit_bijection(build(), x).raise_for_faults()
        assert not audit_gradients(Flow(build(), StandardNormal(2)), x).faults


class Wrong(Bijection):
    """An affine coupling with a fault put into some of its methods by the test."""

    def __init__(self, encode=None, decode=None, **alone):
        super().__init__()
        with seeded():
            self.right = coupling(Affine())
        self.faults = {"encode": encode, "decode": decode}
        self.alone = alone

    def encode_and_logdet(self, x, context=None, generator=None):
        z, logdet = self.right.encode_and_logdet(x, context, generator)
        return self.faults["encode"](z, logdet, x) if self.faults["encode"] else (z, logdet)

    def decode_and_logdet(self, z, context=None, generator=None):
        x, logdet = self.right.decode_and_logdet(z, context, generator)
        return self.faults["decode"](x, logdet, z) if self.faults["decode"] else (x, logdet)

    def encode(self, x, context=None, generator=None):
        z = self.encode_and_logdet(x, context, generator)[0]
        return self.alone["encode_alone"](z) if "encode_alone" in self.alone else z

    def decode(self, z, context=None, generator=None):
        x = self.decode_and_logdet(z, context, generator)[0]
        return self.alone["decode_alone"](x) if "decode_alone" in self.alone else x


class Unused(Wrong):
    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.ones(2))


class Mixing(Bijection):
    """Centres every batch on its own mean: each row depends on its mates."""

    def encode_and_logdet(self, x, context=None, generator=None):
        return x - 0.1 * x.mean(0), x.new_zeros(len(x))

    def decode_and_logdet(self, z, context=None, generator=None):
        return z + z.mean(0) / 9, z.new_zeros(len(z))


def steep(t, x, context=None):
    return torch.stack([x[:, 0] + x[:, 1], 2 * x[:, 1]], 1)


def loud(shape, like, generator=None):
    return 2**0.5 * Gaussian()(shape, like, generator)


def shared(shape, like, generator=None):
    return Gaussian()((*shape[:-2], 1, shape[-1]), like, generator).repeat(1, shape[-2], 1)


class Squashed(Bijection):
    """The sigmoid as the way from data to latent: onto (0, 1) and no further; its decode is the logit."""

    def encode_and_logdet(self, x, context=None, generator=None):
        return x.sigmoid(), (x.sigmoid() * (-x).sigmoid()).log().sum(1)

    def decode_and_logdet(self, z, context=None, generator=None):
        return z.logit(), -(z * (1 - z)).log().sum(1)


class Clamped(Squashed):
    """It decodes every latent to finite data, of which those outside of (0, 1) are not the encoding."""

    def decode_and_logdet(self, z, context=None, generator=None):
        return super().decode_and_logdet(z.clamp(1e-6, 1 - 1e-6))


class Rough(Wrong):
    """Refuses every point that is not near the data."""

    def decode_and_logdet(self, z, context=None, generator=None):
        if z.abs().max() > 1.5:
            raise RuntimeError("no root\nwas found")
        return super().decode_and_logdet(z, context, generator)


class Unable(Wrong):
    def decode_and_logdet(self, z, context=None, generator=None):
        raise NotImplementedError("no inverse")


class Old(Wrong):
    def decode(self, z):
        return super().decode(z)


class Unlearned(Bijection):
    """A map with a log-determinant computed where no gradient is kept."""

    def __init__(self):
        super().__init__()
        self.size = nn.Parameter(torch.tensor(0.5))

    def encode_and_logdet(self, x, context=None, generator=None):
        with torch.no_grad():
            logdet = torch.log1p(self.size * (-x.square()).exp()).sum(1)
        return x + self.size * math.pi**0.5 / 2 * torch.erf(x), logdet

    def decode_and_logdet(self, z, context=None, generator=None):
        x = z
        for _ in range(200):
            x = x - (self.encode_and_logdet(x)[0] - z) / (1 + self.size)
        return x, -self.encode_and_logdet(x)[1]


class Mutating(Wrong):
    """Adds in place to a tensor that autograd needs."""

    def encode_and_logdet(self, x, context=None, generator=None):
        y = x.exp()
        logdet = y.sum(1)
        y += 1
        return super().encode_and_logdet(y.log())[0], logdet


def one(z, ld, x):
    return z


wrong = {
    "log-det dropped": (lambda: Wrong(lambda z, ld, x: (z, 0 * ld)), "encode log-det"),
    "sign flipped": (lambda: Wrong(lambda z, ld, x: (z, -ld)), "encode log-det"),
    "halved": (lambda: Wrong(lambda z, ld, x: (z, ld / 2)), "encode log-det"),
    "sign flipped in decode": (lambda: Wrong(decode=lambda x, ld, z: (x, -ld)), "decode log-det"),
    "NaN": (lambda: Wrong(lambda z, ld, x: (z, ld * torch.nan)), "encode log-det"),
    "NaN among the values": (lambda: Wrong(lambda z, ld, x: (z, ld * torch.nan)), "values are finite"),
    "infinite points": (lambda: Wrong(decode=lambda x, ld, z: (x / 0, ld)), "values are finite"),
    "NaN points": (lambda: Wrong(lambda z, ld, x: (z * torch.nan, ld)), "decode(encode(x)) = x"),
    "decode slightly off": (lambda: Wrong(decode=lambda x, ld, z: (x + 1e-4, ld)), "decode(encode(x)) = x"),
    "encode slightly off": (
        lambda: Wrong(lambda z, ld, x: (z * 1.0001, ld + 2e-4)),
        "encode(decode(z)) = z at z = encode(x)",
    ),
    "decode off far out": (
        lambda: Wrong(decode=lambda x, ld, z: (torch.where(z.abs() > 1.8, x + 1, x), ld)),
        "encode(decode(z)) = z at latents z",
    ),
    "not onto": (Squashed, "encode(decode(z)) = z at latents z"),
    "not onto and clamped": (Clamped, "encode(decode(z)) = z at latents z"),
    "raises at a latent": (Rough, "encode(decode(z)) = z at latents z"),
    "encode alone disagrees": (
        lambda: Wrong(encode_alone=lambda z: z * 1.001),
        "encode = encode_and_logdet",
    ),
    "decode alone disagrees": (
        lambda: Wrong(decode_alone=lambda x: x * 1.001),
        "decode = decode_and_logdet",
    ),
    "log-det of shape (B, 1)": (lambda: Wrong(lambda z, ld, x: (z, ld[:, None])), "methods return"),
    "log-det summed over the batch": (lambda: Wrong(lambda z, ld, x: (z, ld.sum())), "methods return"),
    "decode log-det of shape (B, D)": (lambda: Wrong(decode=lambda x, ld, z: (x, z)), "methods return"),
    "latent flattened": (lambda: Wrong(lambda z, ld, x: (z.flatten(), ld)), "methods return"),
    "latent of fewer coordinates": (lambda: Wrong(lambda z, ld, x: (z[:, :1], ld)), "methods return"),
    "the point alone": (lambda: Wrong(one), "methods return"),
    "no log-det": (lambda: Wrong(decode=lambda x, ld, z: (x, None)), "methods return"),
    "decode alone returns both": (lambda: Wrong(decode_alone=lambda x: (x, x[:, 0])), "methods return"),
    "encode alone of another shape": (lambda: Wrong(encode_alone=lambda z: z[:, 0]), "methods return"),
    "no inverse": (Unable, "methods return"),
    "parameter unused": (Unused, "reaches every parameter"),
    "everything detached": (
        lambda: Wrong(lambda z, ld, x: (z.detach(), ld.detach())),
        "reaches every parameter",
    ),
    "change unseen by autograd": (
        lambda: Wrong(lambda z, ld, x: (x + (z - x).detach(), 0 * ld)),
        "Jacobian = central differences",
    ),
    "a tensor changed that autograd needs": (Mutating, "Jacobian by autograd"),
    "log-det detached": (lambda: Wrong(lambda z, ld, x: (z, ld.detach())), "have their gradients"),
    "log-det without a graph": (Unlearned, "have their gradients"),
    "rows mixed": (Mixing, "rows do not mix"),
    "loud probes": (lambda: CNF(steep, Hutchinson(loud), Fixed(6)), "log-det"),
    "coarse steps": (lambda: CNF(steep, Exact(), Fixed(2)), "decode(encode(x)) = x"),
    "one probe for all rows": (lambda: CNF(steep, Hutchinson(shared), Fixed(6)), "log-det"),
    "estimate of half": (
        lambda: CNF(steep, lambda x, g: scaled(Hutchinson()(x, g), 0.5), Fixed(6)),
        "log-det",
    ),
}


def scaled(estimator, factor):
    def estimate(*args):
        local = estimator(*args)
        return local._replace(divergence=factor * local.divergence)

    return estimate


def test_methods_that_do_not_take_context_and_generator_are_refused_by_name_wherever_a_bijection_is_held():
    for call in (lambda g: audit_bijection(g, x), Chain, Inverse, lambda g: Flow(g, StandardNormal(2))):
        with pytest.raises(
            ValueError, match=r"called as encode\(x, context, generator\); got Old without decode of"
        ):
            call(Old())


@pytest.mark.parametrize(("build", "check"), wrong.values(), ids=wrong)
def test_a_wrong_bijection_is_caught_by_the_check_meant_for_it(build, check):
    report = audit_bijection(build(), x)
    assert any(check in fault.check for fault in report.faults)
    with pytest.raises(AuditError, match="error") as caught:
        report.raise_for_faults()
    assert all(
        fault.check in str(caught.value) and fault.hint in str(caught.value) for fault in report.faults
    )


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: Wrong(lambda z, ld, x: (z, ld[:, None])),
            "encode_and_logdet",
        ),
        (lambda: Wrong(decode=lambda x, ld, z: (x, None)), "decode_and_logdet"),
        (lambda: Wrong(decode_alone=lambda x: (x, 0)), "decode returns tuple"),
        (Unable, "decode_and_logdet raises NotImplementedError: no inverse"),
        (Squashed, "not onto"),
        (Rough, "RuntimeError: no root was found. encode does not"),
        (lambda: Raising(), "encode_and_logdet raises ValueError: far"),
    ],
)
def test_a_fault_says_what_came_back(build, words):
    with pytest.raises(AuditError, match=words):
        audit_bijection(build(), x).raise_for_faults()


class Raising(Wrong):
    """Works at its own weights only."""

    def encode_and_logdet(self, x, context=None, generator=None):
        with seeded():
            fresh = coupling(Affine()).double()
        if any(
            not torch.equal(p, q) for p, q in zip(self.right.parameters(), fresh.parameters(), strict=True)
        ):
            raise ValueError("far from home")
        return super().encode_and_logdet(x, context, generator)


@pytest.mark.parametrize("build", [Squashed, Clamped, lambda: Inverse(Logit())])
def test_latents_are_those_that_the_base_may_draw(build):
    inside = torch.rand(3, 2, generator=rng())
    assert audit_bijection(build(), x).faults
    audit_bijection(build(), x, inside).raise_for_faults()


def test_whatever_has_the_four_methods_is_audited():
    class Plain:
        def encode_and_logdet(self, x, context=None, generator=None):
            return 2 * x, x.new_full((len(x),), 2 * math.log(2))

        def decode_and_logdet(self, z, context=None, generator=None):
            return z / 2, z.new_full((len(z),), -2 * math.log(2))

        def encode(self, x, context=None, generator=None):
            return 2 * x

        def decode(self, z, context=None, generator=None):
            return z / 2

    audit_bijection(Plain(), x).raise_for_faults()


def test_a_latent_may_have_another_shape():
    audit_bijection(Flatten((2, 3)), torch.randn(3, 2, 3, generator=rng())).raise_for_faults()


def test_labels_reach_the_bijection_untouched():
    class Shifted(Bijection):
        def __init__(self):
            super().__init__()
            self.shift = nn.Embedding(3, 2)

        def encode_and_logdet(self, x, context=None, generator=None):
            return x - self.shift(context), x.new_zeros(len(x))

        def decode_and_logdet(self, z, context=None, generator=None):
            return z + self.shift(context), z.new_zeros(len(z))

    labels = torch.tensor([0, 1, 2])
    audit_bijection(Shifted(), x, context=labels).raise_for_faults()
    audit_gradients(Flow(Shifted(), StandardNormal(2)), x, labels).raise_for_faults()


class Shift(Bijection):
    """The shift of x by what a function makes of the layer and the context."""

    def __init__(self, shift, **parts):
        super().__init__()
        self.shift = shift
        for name, part in parts.items():
            setattr(self, name, part)

    def encode_and_logdet(self, x, context=None, generator=None):
        return x - self.shift(self, x, context), x.new_zeros(len(x))

    def decode_and_logdet(self, z, context=None, generator=None):
        return z + self.shift(self, z, context), z.new_zeros(len(z))


def test_rows_that_mix_through_their_contexts_are_caught_for_labels_too():
    centred = lambda g, x, c: (c - 1.0 * c.double().mean(0)).reshape(-1, 1)  # noqa: E731
    for context in (torch.randn(3, 1, generator=rng()), torch.tensor([0, 1, 5])):
        (fault,) = audit_bijection(Shift(centred), x, context=context).faults
        assert fault.check == "rows do not mix"
        apart = Shift(lambda g, x, c: c.reshape(-1, 1))
        audit_bijection(apart, x, context=context).raise_for_faults()


lost = {
    "a tensor": (lambda t: {"s": t}, "s"),
    "a buffer": (lambda t: {"inner": with_buffer(t)}, "inner.s"),
    "tensors in a dict of lists": (lambda t: {"s": {"a": [t]}}, r"s\['a'\]\[0\]"),
    "modules in a list": (lambda t: {"s": [nn.Linear(1, 1, bias=False)]}, r"s\[0\].weight"),
    "modules in a tuple of a part": (lambda t: {"inner": Shift(None, s=(nn.Linear(2, 2),))}, "inner.s"),
}


def with_buffer(t):
    module = nn.Module()
    module.register_buffer("s", t)
    return module


@pytest.mark.parametrize(("parts", "name"), lost.values(), ids=lost)
def test_what_wants_a_gradient_and_is_not_registered_is_named_by_both_audits(parts, name):
    g = Shift(lambda g, x, c: 0 * x, **parts(torch.zeros(2, requires_grad=True)))
    for report in (audit_bijection(g, x), audit_gradients(Flow(g, StandardNormal(2)), x)):
        (fault,) = report.faults
        assert fault.check == "everything learned is registered"
        with pytest.raises(AuditError, match=rf"{name}.*nn.Parameter.*nn.ModuleList"):
            report.raise_for_faults()


def test_parts_that_are_registered_elsewhere_or_learn_nothing_may_lie_in_lists():
    net = nn.Linear(2, 2)
    g = Shift(lambda g, x, c: 0.1 * g.net.bias, net=net, same=[net], table=[torch.ones(2)])
    net.weight.requires_grad_(False)
    audit_bijection(g, x).raise_for_faults()


@pytest.mark.parametrize("method", ["encode_and_logdet", "decode_and_logdet", "decode"])
def test_a_method_that_changes_what_it_is_given_is_named(method):
    class InPlace(Wrong):
        pass

    def changing(self, point, context=None, generator=None):
        before = point.clone()
        point *= 2
        return getattr(Wrong, method)(self, before, context, generator)

    setattr(InPlace, method, changing)
    start = x.clone()
    (fault,) = audit_bijection(InPlace(), x).faults
    assert fault.check == "x is left as it was" and method in fault.hint and torch.equal(x, start)


def test_a_gradient_that_is_cut_on_its_way_to_the_context_is_caught_by_both_audits():
    context = torch.randn(3, 1, generator=rng())
    for cut in (True, False):
        g = Shift(lambda g, x, c, cut=cut: c.detach() if cut else c)
        once = audit_bijection(g, x, context=context)
        assert ["z of context" in fault.hint for fault in once.faults] == [True] * cut
        again = audit_gradients(Flow(g, StandardNormal(2)), x, context)
        assert ["of context" in fault.check for fault in again.faults] == [True] * cut


class Leaky(Bijection):
    """x above 0 and s x below it, of a learned slope s."""

    def __init__(self, of=lambda slope: slope):
        super().__init__()
        self.slope, self.of = nn.Parameter(torch.tensor(0.5)), of

    def encode_and_logdet(self, x, context=None, generator=None):
        slopes = torch.where(x < 0, self.of(self.slope), 1)
        return x * slopes, slopes.log().sum(1)

    def decode_and_logdet(self, z, context=None, generator=None):
        slopes = torch.where(z < 0, self.of(self.slope), 1)
        return z / slopes, -slopes.log().sum(1)


def test_a_parameter_that_changes_nothing_at_these_points_is_no_fault_and_one_that_does_is_named():
    for side in (x.abs(), -x.abs()):
        audit_bijection(Leaky(), side).raise_for_faults()
    audit_bijection(Leaky(lambda s: s.detach() + 0 * s), x.abs()).raise_for_faults()
    report = audit_bijection(Leaky(lambda s: s.detach() + 0 * s), -x.abs())
    assert all("slope" in fault.hint for fault in report.faults) and len(report.faults) == 2


gradients = {
    "log-det detached": Wrong(lambda z, ld, x: (z, ld.detach())),
    "log-det doubled in its gradient": Wrong(lambda z, ld, x: (z, 2 * ld - ld.detach())),
    "latent detached": Wrong(lambda z, ld, x: (z.detach(), ld)),
}


@pytest.mark.parametrize("bijection", gradients.values(), ids=gradients)
def test_a_wrong_gradient_is_caught(bijection):
    flow = Flow(bijection, StandardNormal(2))
    report = audit_gradients(flow, x)
    assert any(name in fault.check for fault in report.faults for name, _ in flow.named_parameters())
    with pytest.raises(AuditError, match="gradient"):
        report.raise_for_faults()


def test_a_log_det_without_a_gradient_is_the_one_fault_and_a_wrong_one_is_left_to_the_audit_of_gradients():
    for bijection in (gradients["log-det detached"], Unlearned()):
        (fault,) = audit_bijection(bijection, x).faults
        assert "z and log-det have their gradients" in fault.check and fault.error > 1
    audit_bijection(gradients["log-det doubled in its gradient"], x).raise_for_faults()


def test_a_log_det_detached_by_its_divergence_is_caught():
    def detached(x, generator=None):
        estimator = Exact()(x, generator)
        return lambda *args: estimator(*args)._replace(divergence=estimator(*args).divergence.detach())

    with seeded():
        flow = flows["ffjord fixed"].build()
    assert not audit_gradients(flow, x).faults
    flow.bijection.divergence = detached
    assert audit_gradients(flow, x).faults


def test_audits_change_nothing_that_they_are_given():
    flow, points = realnvp(dim=2, layers=2), x.double()
    flow.bijection.layers[0].requires_grad_(False)
    start, weights, state = (
        points.clone(),
        [p.clone() for p in flow.parameters()],
        torch.random.get_rng_state(),
    )
    audit_bijection(flow.bijection, points)
    report = audit_gradients(flow.double(), points)
    assert torch.equal(points, start) and not points.requires_grad
    assert all(torch.equal(p, w.double()) for p, w in zip(flow.parameters(), weights, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    learned = list(flow.bijection.layers[1].parameters())  # frozen ones are left out
    assert len(report.findings) == len(learned) + 2  # x, and that all are registered


@pytest.mark.parametrize("seed", range(2))
def test_one_point_is_enough_for_an_estimate_that_takes_few_values(seed):
    """At one point in two dimensions half of all pairs of signs give one estimate."""
    one = torch.randn(1, 2, generator=rng(seed))
    audit_bijection(CNF(steep, Hutchinson(), Fixed(8)), one, tolerance=1e-4).raise_for_faults()


def test_context_and_stride_are_no_obstacle():
    member = flows["realnvp context"]
    wide, context = (a[:1].expand(3, -1) for a in points(member))
    audit_bijection(built(member).bijection, wide, context=context).raise_for_faults()
    audit_gradients(built(member), wide, context).raise_for_faults()


def test_a_report_prints_a_table_with_a_line_for_each_check():
    good, bad = Finding("a", 1e-9, 1e-6, "never seen"), Finding("long name", 0.5, 1e-6, "look here")
    lines = str(Report((good, bad))).splitlines()
    assert [line.split()[0] for line in lines] == ["check", "a", "long"]
    assert lines[1].endswith("ok") and lines[2].endswith("look here") and "5.00e-01" in lines[2]
    assert (
        len({line.index(word) for line, word in zip(lines, ("error", "1.00e-09", "5.00e-01"), strict=True)})
        <= 2
    )
    assert Report((good, bad)).faults == (bad,) and not Finding("NaN", float("nan"), 1.0, "").passed


def test_a_report_ends_by_naming_what_comes_next_and_shows_its_table_in_a_notebook():
    g = Standardize(torch.zeros(2), torch.ones(2))
    report = audit_bijection(g, x)
    assert "audit_gradients" in str(report).splitlines()[-1] and repr(report) == str(report)
    gradients = audit_gradients(Flow(g, StandardNormal(2)), x)
    assert repr(gradients) == str(gradients) and "audit" not in str(gradients)


standard = Standardize(torch.zeros(2), torch.ones(2))
refused = {
    "no batch": (lambda: audit_bijection(standard, torch.zeros(2)), "batch dimension"),
    "integers": (lambda: audit_bijection(standard, torch.zeros(3, 2).long()), "floating dtype"),
    "another event": (
        lambda: audit_bijection(standard, torch.zeros(3, 4)),
        r"x of shape \(B, 2\); got \(3, 4\)",
    ),
    "other channels": (lambda: audit_bijection(ActNorm(3), torch.zeros(3, 2, 4)), r"x of shape \(B, 3, 4\)"),
    "x not finite": (lambda: audit_bijection(standard, x / 0), "finite x"),
    "z of other rows": (lambda: audit_bijection(standard, x, x[:2]), "z to hold a latent"),
    "z of another event": (lambda: audit_bijection(standard, x, torch.zeros(3, 4)), "z to hold a latent"),
    "context of other rows": (lambda: audit_bijection(standard, x, context=x[:2]), "tensor with B = 3 rows"),
    "a flow": (
        lambda: audit_bijection(Flow(standard, StandardNormal(2)), x),
        "bijection",
    ),
    "a class": (lambda: audit_bijection(Squashed, x), "got the class Squashed"),
    "a net": (lambda: audit_bijection(nn.Linear(2, 2), x), "got Linear without encode"),
    "no points": (lambda: audit_bijection(standard, x[:0]), r"one point at least.*got x of shape \(0, 2\)"),
    "no tolerance": (lambda: audit_bijection(standard, x, tolerance=0), "tolerance > 0"),
    "no points of a flow": (
        lambda: audit_gradients(Flow(standard, StandardNormal(2)), x[:0]),
        "one point at least",
    ),
    "no draws": (lambda: audit_bijection(standard, x, draws=0), "draws to be a positive int"),
    "another event of a flow": (
        lambda: audit_gradients(Flow(standard, StandardNormal(2)), x[:, :1]),
        r"x of shape \(B, 2\); got \(3, 1\)",
    ),
    "context of other rows of a flow": (
        lambda: audit_gradients(Flow(standard, StandardNormal(2)), x, x[:2]),
        "tensor with B = 3 rows",
    ),
}


@pytest.mark.parametrize(("call", "match"), refused.values(), ids=refused)
def test_an_audit_checks_its_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_flow_that_raises_is_a_finding():
    class Stuck(Wrong):
        def encode_and_logdet(self, x, context=None, generator=None):
            raise SolveError("no step is small enough")

    report = audit_gradients(Flow(Stuck(), StandardNormal(2)), x)
    (fault,) = report.faults
    assert fault.check == "gradient" and "SolveError: no step is small enough" in fault.hint


@pytest.mark.parametrize(
    ("solver", "other"),
    [
        (Fixed(4), "checkpoint"),
        (Fixed(4, checkpoint=True), "checkpoint"),
        (Adaptive(rtol=1e-3, atol=1e-3), "adjoint"),
        (TorchDiffEq(rtol=1e-3), "adjoint"),
    ],
    ids=str,
)
def test_a_solve_is_audited_in_every_way_to_differentiate_it_and_left_as_it_was(solver, other):
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.5))

        def forward(self, t, x):
            return torch.tanh(self.rate * x.flip(1)) * (1 + t)

    flow = Flow(CNF(Turning(), solver=solver), StandardNormal(2))
    report = audit_gradients(flow, x[:2])
    report.raise_for_faults()
    names = [finding.check for finding in report.findings]
    ways = {way for way in ("backprop", "checkpoint", "adjoint") if f"gradient of x, by {way}" in names}
    assert ways == {"backprop", other}
    assert any(name.endswith("= backprop") for name in names)
    assert flow.bijection.solver == solver


class Kinked(nn.Module):
    """The shift max(x, 0)."""

    def forward(self, x, context):
        return torch.relu(x)


@pytest.mark.parametrize("offset", [0.0, 3e-5, -8e-5])
def test_a_kink_near_a_point_is_no_fault(offset):
    g = Coupling(torch.tensor([True, False]), Additive(), Kinked())
    report = audit_bijection(g, torch.tensor([[offset, 1.0], [2.0, 0.5]]))
    finding = {f.check: f for f in report.findings}["Jacobian = central differences"]
    assert finding.passed == (offset != 0.0)  # at the kink itself there is no derivative to agree with
