"""The audit passes every member of the registry and catches each of a set of wrong implementations."""

import pytest
import torch
from registry import Member, bijections, built, coupling, flows, points, rng, seeded
from torch import nn

from cnflib import Bijection, Flow, Standardize, StandardNormal
from cnflib.audit import AuditError, Finding, Report, audit_bijection, audit_gradients
from cnflib.continuous import CNF, exact, fixed, gaussian, hutchinson
from cnflib.discrete import Coupling, additive, affine
from cnflib.models import realnvp

x, _ = points(Member(None), dtype=torch.float32)


@pytest.mark.parametrize("name", bijections)
def test_every_member_passes(name):
    member = bijections[name]
    one, context = points(member, 1, torch.float32)
    report = audit_bijection(built(member, torch.float32), one, context, tolerance=1e-5)
    report.raise_for_faults()
    assert not report.faults and len(report.findings) == 9


@pytest.mark.parametrize("build", [bijections["Chain"].build, bijections["CNF hutchinson"].build])
def test_a_fresh_flow_passes_too(build):
    with seeded():
        audit_bijection(build(), x).raise_for_faults()
        assert not audit_gradients(Flow(build(), StandardNormal(2)), x).faults


class Wrong(Bijection):
    """An affine coupling with a fault put in by the test."""

    def __init__(self, forward=None, inverse=None, decode=None):
        super().__init__()
        with seeded():
            self.right = coupling(affine())
        self.faults = {"forward": forward, "inverse": inverse, "decode": decode}

    def forward(self, x, context=None, generator=None):
        z, logdet = self.right(x, context, generator)
        return self.faults["forward"](z, logdet, x) if self.faults["forward"] else (z, logdet)

    def inverse(self, z, context=None, generator=None):
        x, logdet = self.right.inverse(z, context, generator)
        return self.faults["inverse"](x, logdet, z) if self.faults["inverse"] else (x, logdet)

    def decode(self, z, context=None):
        x = self.right.decode(z, context)
        return self.faults["decode"](x) if self.faults["decode"] else x


class Unused(Wrong):
    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.ones(2))


class Mixing(Bijection):
    """Centres every batch on its own mean: each row depends on its mates."""

    def forward(self, x, context=None, generator=None):
        return x - 0.1 * x.mean(0), x.new_zeros(len(x))

    def inverse(self, z, context=None, generator=None):
        return z + z.mean(0) / 9, z.new_zeros(len(z))


def steep(t, x, context=None):
    return torch.stack([x[:, 0] + x[:, 1], 2 * x[:, 1]], 1)


def loud(shape, like, generator=None):
    return 2**0.5 * gaussian(shape, like, generator)


def shared(shape, like, generator=None):
    return gaussian((*shape[:-2], 1, shape[-1]), like, generator).repeat(1, shape[-2], 1)


wrong = {
    "log-det dropped": (lambda: Wrong(lambda z, ld, x: (z, 0 * ld)), "forward log-det"),
    "sign flipped": (lambda: Wrong(lambda z, ld, x: (z, -ld)), "forward log-det"),
    "halved": (lambda: Wrong(lambda z, ld, x: (z, ld / 2)), "forward log-det"),
    "sign flipped in inverse": (lambda: Wrong(inverse=lambda x, ld, z: (x, -ld)), "inverse log-det"),
    "NaN": (lambda: Wrong(lambda z, ld, x: (z, ld * torch.nan)), "forward log-det"),
    "inverse slightly off": (lambda: Wrong(inverse=lambda x, ld, z: (x + 1e-4, ld)), "inverse(forward(x))"),
    "forward slightly off": (lambda: Wrong(lambda z, ld, x: (z * 1.0001, ld + 2e-4)), "forward(inverse(z))"),
    "decode disagrees": (lambda: Wrong(decode=lambda x: x * 1.001), "decode"),
    "log-det of shape (B, 1)": (lambda: Wrong(lambda z, ld, x: (z, ld[:, None])), "shapes"),
    "log-det summed over the batch": (lambda: Wrong(lambda z, ld, x: (z, ld.sum())), "shapes"),
    "inverse log-det of shape (B, D)": (lambda: Wrong(inverse=lambda x, ld, z: (x, z)), "shapes"),
    "latent flattened": (lambda: Wrong(lambda z, ld, x: (z.flatten(), ld)), "shapes"),
    "parameter unused": (Unused, "reaches every parameter"),
    "everything detached": (
        lambda: Wrong(lambda z, ld, x: (z.detach(), ld.detach())),
        "reaches every parameter",
    ),
    "change unseen by autograd": (
        lambda: Wrong(lambda z, ld, x: (x + (z - x).detach(), 0 * ld)),
        "Jacobian = central differences",
    ),
    "rows mixed": (Mixing, "rows do not mix"),
    "loud probes": (lambda: CNF(steep, hutchinson(loud), fixed(6)), "log-det"),
    "coarse steps": (lambda: CNF(steep, exact, fixed(2)), "inverse(forward(x))"),
    "one probe for all rows": (lambda: CNF(steep, hutchinson(shared), fixed(6)), "log-det"),
    "estimate of half": (
        lambda: CNF(steep, lambda x, g: scaled(hutchinson()(x, g), 0.5), fixed(6)),
        "log-det",
    ),
}


def scaled(estimator, factor):
    def estimate(*args):
        local = estimator(*args)
        return local._replace(divergence=factor * local.divergence)

    return estimate


@pytest.mark.parametrize(("build", "check"), wrong.values(), ids=wrong)
def test_a_wrong_bijection_is_caught_by_the_check_meant_for_it(build, check):
    report = audit_bijection(build(), x)
    assert any(check in fault.check for fault in report.faults)
    with pytest.raises(AuditError, match="error .* > .*") as caught:
        report.raise_for_faults()
    assert all(
        fault.check in str(caught.value) and fault.hint in str(caught.value) for fault in report.faults
    )


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
    with pytest.raises(AuditError, match="gradient of .*detach"):
        report.raise_for_faults()


def test_a_log_det_detached_by_its_divergence_is_caught():
    def detached(x, generator=None):
        estimator = exact(x, generator)
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
    assert len(report.findings) == 1 + len(
        list(flow.bijection.layers[1].parameters())
    )  # frozen ones are left out


@pytest.mark.parametrize("seed", range(2))
def test_one_point_is_enough_for_an_estimate_that_takes_few_values(seed):
    """At one point in two dimensions half of all pairs of signs give one estimate."""
    one = torch.randn(1, 2, generator=rng(seed))
    audit_bijection(CNF(steep, hutchinson(), fixed(6)), one, tolerance=1e-4).raise_for_faults()


def test_context_and_stride_are_no_obstacle():
    member = flows["realnvp context"]
    wide, context = (a[:1].expand(3, -1) for a in points(member))
    audit_bijection(built(member).bijection, wide, context).raise_for_faults()
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


@pytest.mark.parametrize(
    ("points", "match"), [(torch.zeros(2), "batch|dimension"), (torch.zeros(3, 2).long(), "dtype")]
)
def test_an_audit_checks_its_points(points, match):
    with pytest.raises(ValueError, match=match):
        audit_bijection(Standardize(torch.zeros(2), torch.ones(2)), points)


class Kinked(nn.Module):
    """The shift max(x, 0)."""

    def forward(self, x, context):
        return torch.relu(x)


@pytest.mark.parametrize("offset", [0.0, 3e-5, -8e-5])
def test_a_kink_near_a_point_is_no_fault(offset):
    g = Coupling(torch.tensor([True, False]), additive(), Kinked())
    report = audit_bijection(g, torch.tensor([[offset, 1.0], [2.0, 0.5]]))
    finding = {f.check: f for f in report.findings}["Jacobian = central differences"]
    assert finding.passed == (offset != 0.0)  # at the kink itself there is no derivative to agree with
