"""The appendices: what their boxes say holds in numbers, their worked numbers are right, and a reader finds her way."""

import math
import re

import pytest
import torch
from house_rules import ROOT
from notebooks import words
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.func import hessian, jacrev, vmap

from cnflib.continuous import CNF
from cnflib.ode import Fixed, rk4

PAGES = {name: (ROOT / f"book/appendix-{name}.md").read_text(encoding="utf-8") for name in "abc"}
FENCE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LABELS = {label for page in PAGES.values() for label in re.findall(r"^\((\w+-\w+)\)=$", page, re.M)}
EYE = torch.eye(3, dtype=torch.float64)


@pytest.fixture
def draw():
    """Normal numbers in float64."""
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def matrix(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def positive(a: torch.Tensor) -> torch.Tensor:
    """A positive definite matrix made of any."""
    return a @ a.mT + 0.5 * torch.eye(len(a), dtype=a.dtype)


def power(a: torch.Tensor, p: float) -> torch.Tensor:
    """The power of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(a)
    return (vectors * values**p) @ vectors.mT


def logdet(a: torch.Tensor) -> torch.Tensor:
    return torch.linalg.slogdet(a).logabsdet


def gauss_kl(m0, S0, m1, S1) -> torch.Tensor:
    """Theorem B.5a (b)."""
    shift = power(S1, -0.5) @ (m1 - m0)
    return (torch.linalg.solve(S1, S0).trace() - len(m0) + logdet(S1) - logdet(S0) + shift.square().sum()) / 2


def bures(S0, S1) -> torch.Tensor:
    """Theorem B.6 (c) for equal means."""
    root = power(S0, 0.5)
    return S0.trace() + S1.trace() - 2 * power(root @ S1 @ root, 0.5).trace()


def says(name: str, *values: str) -> None:
    """The page prints these numbers."""
    assert all(value in PAGES[name] for value in values)


# The pages.


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short_enough(name):
    text = FENCE.sub("", PAGES[name])
    assert 1000 < words(text) <= 1900
    for sentence in re.split(r"(?<=[.!?:])\s+", re.sub(r"\$\$.*?\$\$", " ", text, flags=re.S)):
        assert words(sentence) <= 35, sentence


@pytest.mark.parametrize("name", PAGES)
def test_five_questions_lead_to_the_sections(name):
    test = PAGES[name].split("## Do you need this page?\n")[1].split("\n(")[0]
    assert re.findall(r"^\*\*(\d)\.\*\* .*\?$", test, re.M) == list("12345")
    answers = re.findall(r"<details><summary>Answer (\d)</summary>\n\n(.*?)\n</details>", test, re.S)
    assert [number for number, _ in answers] == list("12345")
    named = [set(re.findall(r"\{ref\}`[^`]* <([\w-]+)>`", answer)) for _, answer in answers]
    own = set(re.findall(r"^\((\w+-\w+)\)=$", PAGES[name], re.M))
    assert all(named) and set.union(*named) == own  # five right answers, and no section is left


@pytest.mark.parametrize("name", PAGES)
def test_sections_count_up_and_a_box_has_the_number_of_its_section(name):
    letter = name.upper()
    sections = re.findall(rf"^\([\w-]+\)=\n## {letter}\.(\d+) ", PAGES[name], re.M)
    assert sections == [str(n) for n in range(1, len(sections) + 1)] and len(sections) > 5
    bodies = re.split(rf"^## {letter}\.", PAGES[name].split("\n## To read on")[0], flags=re.M)[1:]
    for number, body in zip(sections, bodies, strict=True):
        boxes = re.findall(rf"^> \*\*(?:Theorem|Corollary) {letter}\.(\w+)\*\* \(", body, re.M)
        assert boxes in ([number], [number + part for part in "abc"[: len(boxes)]])
        assert "*By hand.*" in body and "*Used in*" in body and "*Proof" in body


def test_a_section_is_named_by_its_number():
    for page in PAGES.values():
        for shown, label in re.findall(r"\{ref\}`([^`<]*) <([\w-]+)>`", page):
            assert label in LABELS
            home = next(text for text in PAGES.values() if f"({label})=" in text)
            section = home.split(f"({label})=\n")[1].split("\n(")[0]
            if re.fullmatch(r"[ABC]\.\d+", shown):
                assert section.startswith(f"## {shown} ")
            elif shown.startswith("Theorem "):
                assert f"> **{shown}** (" in section


def test_a_box_that_is_named_is_there():
    for page in PAGES.values():
        for named in re.findall(r"(?:Theorem|Corollary) ([ABC]\.\w+)", page):
            assert re.search(
                rf"^> \*\*(?:Theorem|Corollary) {re.escape(named)}\*\* \(", PAGES[named[0].lower()], re.M
            )


def test_a_theorem_of_a_chapter_that_is_named_is_there():
    chapters = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "chapters").glob("*.ipynb"))
    for page in PAGES.values():
        for number in re.findall(r"Theorems? (\d+\.\d+)", page) + re.findall(r" and (\d+\.\d+)\)", page):
            assert f"**Theorem {number}**" in chapters
        for file in re.findall(r"\]\(\.\./(chapters/[\w-]+\.ipynb)\)", page):
            assert (ROOT / file).exists()


@pytest.mark.parametrize("name", PAGES)
def test_code_is_short_and_ends_in_what_it_shows(name):
    programs = FENCE.findall(PAGES[name])
    assert len(programs) > 1
    for program in programs:
        lines = [line for line in program.splitlines() if line.strip()]
        assert len(lines) <= 12 and max(map(len, lines)) <= 84 and lines[-1].startswith("assert ")


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_cites_is_in_the_bibliography(name):
    works = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    for key in re.findall(r"\{cite:[pt]\}`(\w+)`", PAGES[name]):
        assert works.count(f"{{{key},") == 1


# Appendix A.


def test_jacobi(draw):
    A, rate = draw(4, 4), draw(4, 4)
    gradient = jacrev(logdet)(A)
    assert torch.allclose(gradient, torch.linalg.inv(A).mT)
    moved = torch.func.jvp(torch.linalg.det, (A,), (rate,))[1]
    assert torch.isclose(moved, torch.linalg.det(A) * torch.linalg.solve(A, rate).trace())
    says("a", "$0.3 - 0.2 - 0.2 = -0.100$")
    A, rate = matrix([2, 1], [1, 1]), matrix([0.3, 0], [0.2, -0.1])
    assert torch.isclose(torch.linalg.solve(A, rate).trace(), torch.tensor(-0.1).double())


def test_log_determinants_as_traces(draw):
    A = positive(draw(4, 4))
    values, vectors = torch.linalg.eigh(A)
    assert torch.isclose(((vectors * values.log()) @ vectors.mT).trace(), logdet(A))
    eye = torch.eye(4).double()
    t = (torch.arange(4000).double() + 0.5) / 4000
    way = eye + t[:, None, None] * (A - eye)  # positive definite on the whole way
    integrand = torch.linalg.solve(way, (A - eye).expand_as(way)).diagonal(dim1=1, dim2=2).sum(1)
    assert torch.isclose(integrand.mean(), logdet(A), atol=1e-5)
    assert abs(logdet(matrix([2, 1], [1, 2])) - 1.099) < 5e-4


@pytest.mark.parametrize("columns", [1, 3])
def test_lemma_and_woodbury(draw, columns):
    A, U, W = draw(5, 5), draw(5, columns), draw(5, columns)
    inverse = torch.linalg.inv(A)
    C = torch.eye(columns).double() + W.mT @ inverse @ U
    assert torch.isclose(torch.linalg.det(A + U @ W.mT), torch.linalg.det(A) * torch.linalg.det(C))
    woodbury = inverse - inverse @ U @ torch.linalg.inv(C) @ W.mT @ inverse
    assert torch.allclose(torch.linalg.inv(A + U @ W.mT), woodbury)
    u, w = matrix([0.5], [-0.4]), matrix([1.0], [2.0])
    assert torch.isclose(torch.linalg.det(torch.eye(2) + u @ w.mT), torch.tensor(0.7).double())
    assert abs(torch.linalg.inv(torch.eye(2) + u @ w.mT)[0, 0] - 0.286) < 5e-4


def test_blocks(draw):
    A = draw(5, 5)
    complement = A[2:, 2:] - A[2:, :2] @ torch.linalg.solve(A[:2, :2], A[:2, 2:])
    assert torch.isclose(torch.linalg.det(A), torch.linalg.det(A[:2, :2]) * torch.linalg.det(complement))
    assert torch.allclose(torch.linalg.inv(A)[2:, 2:], torch.linalg.inv(complement))


def test_the_mirrored_complement(draw):
    A = draw(5, 5)
    complement = A[:2, :2] - A[:2, 2:] @ torch.linalg.solve(A[2:, 2:], A[2:, :2])
    assert torch.isclose(torch.linalg.det(A), torch.linalg.det(A[2:, 2:]) * torch.linalg.det(complement))
    assert torch.allclose(torch.linalg.inv(A)[:2, :2], torch.linalg.inv(complement))


def test_determinants_of_factors_and_traces_in_a_circle(draw):
    A, C, wide = draw(5, 5), draw(5, 5), draw(3, 5)
    assert torch.isclose(torch.linalg.det(A @ C), torch.linalg.det(A) * torch.linalg.det(C))
    Q, R = torch.linalg.qr(A)
    assert torch.isclose(torch.linalg.det(Q).abs(), torch.ones(()).double())
    for factor in (R, torch.linalg.lu(A).U):
        assert torch.isclose(factor.diagonal().abs().log().sum(), logdet(A))
    S = positive(A)
    assert torch.isclose(2 * torch.linalg.cholesky(S).diagonal().log().sum(), logdet(S))
    assert torch.isclose((wide @ C[:, :3]).trace(), (C[:, :3] @ wide).trace())
    assert abs(2 * (math.log(2) + math.log(math.sqrt(2))) - 2.079) < 5e-4
    says("a", "= 2.079 = \\log 8$")


def test_the_series_needs_eigenvalues_inside_the_unit_circle_and_no_small_norm():
    C = matrix([0.5, 9.0], [0.0, -0.3])
    assert torch.linalg.matrix_norm(C, 2) > 9
    terms = [(-1) ** (k + 1) / k * torch.linalg.matrix_power(C, k).trace() for k in range(1, 80)]
    assert torch.isclose(sum(terms), logdet(torch.eye(2).double() + C))


@pytest.mark.parametrize("shift", [0.1, 1.0, 3.0])
def test_a_matrix_is_positive_definite_exactly_if_both_parts_are(draw, shift):
    for _ in range(20):
        A = draw(4, 4) + shift * torch.eye(4)
        A = A + A.mT
        parts = A[:2, :2], A[2:, 2:] - A[2:, :2] @ torch.linalg.solve(A[:2, :2], A[:2, 2:])
        least = min(torch.linalg.eigvalsh(part).min() for part in parts)
        assert (torch.linalg.eigvalsh(A).min() > 0) == (least > 0)


def test_kronecker(draw):
    A, C, X = draw(2, 2), draw(3, 3), draw(2, 3)
    both = torch.kron(A, C)
    assert torch.allclose((A @ X @ C.mT).flatten(), both @ X.flatten())
    assert torch.isclose(torch.linalg.det(both), torch.linalg.det(A) ** 3 * torch.linalg.det(C) ** 2)
    assert torch.isclose(both.trace(), A.trace() * C.trace())
    S, R = A + A.mT, C + C.mT
    first, second = torch.linalg.eigvalsh(S), torch.linalg.eigvalsh(R)
    summed = torch.kron(S, torch.eye(3).double()) + torch.kron(torch.eye(2).double(), R)
    for found, wanted in (
        (torch.kron(S, R), first[:, None] * second),
        (summed, first[:, None] + second),
    ):
        assert torch.allclose(torch.linalg.eigvalsh(found), wanted.flatten().sort().values)
    assert abs(math.log(2**3 * 3**2) - 4.28) < 5e-3 and abs(64 * math.log(2) - 44.4) < 0.05


def test_exponential(draw):
    A = draw(4, 4)
    whole = torch.matrix_exp(A)
    assert torch.isclose(torch.linalg.det(whole), A.trace().exp())
    assert torch.allclose(torch.matrix_exp(A + A @ A), whole @ torch.matrix_exp(A @ A), rtol=1e-8)
    assert torch.allclose(torch.linalg.inv(whole), torch.matrix_exp(-A))
    x = draw(5, 4)
    solved = CNF(lambda t, x: x @ A.mT, solver=Fixed(200, rk4)).decode(x)
    assert torch.allclose(solved, x @ whole.mT, atol=1e-6)
    N = matrix([0, 1], [0, 0])
    product = torch.matrix_exp(N) @ torch.matrix_exp(N.mT)
    assert torch.allclose(product, matrix([2, 1], [1, 1]))
    assert abs(torch.matrix_exp(N + N.mT).trace() - 3.086) < 5e-4


def test_norms_and_growth(draw):
    for _ in range(20):
        A, C, x = draw(4, 4), draw(4, 4), draw(4)
        S = (A + A.mT) / 2
        spectral, frobenius = torch.linalg.matrix_norm(A, 2), torch.linalg.matrix_norm(A)
        top, small = torch.linalg.eigvalsh(S).max(), 1e-9
        assert torch.linalg.eigvals(A).abs().max() <= spectral + small
        assert spectral <= frobenius + small and frobenius <= 2 * spectral + small
        assert torch.linalg.matrix_norm(A @ C, 2) <= spectral * torch.linalg.matrix_norm(C, 2) + small
        assert torch.isclose(x @ A @ x, x @ S @ x) and x @ A @ x <= top * x @ x + small
        assert torch.isclose(frobenius**2, (A.mT @ A).trace())
        for t in (0.1, 1.0, 3.0):
            assert (torch.matrix_exp(t * A) @ x).norm() <= (t * top).exp() * x.norm() * (1 + small)
    A = matrix([-1, 4], [0, -1])
    moved = torch.matrix_exp(0.5 * A) @ matrix(0, 1)
    assert torch.allclose(moved, 0.607 * matrix(2, 1), atol=1e-3) and abs(moved.norm() - 1.356) < 5e-4
    assert torch.allclose(torch.linalg.eigvalsh((A + A.mT) / 2), matrix(-3, 1))
    says("a", "distance 1.356", "$e^{0.5} = 1.649$")


def test_complex_eigenvalues_are_within_the_norm(draw):
    for A in draw(20, 4, 4):
        assert torch.linalg.eigvals(A).abs().max() <= torch.linalg.matrix_norm(A, 2) + 1e-12


def test_a_lipschitz_constant_is_the_largest_norm_of_the_jacobian(draw):
    weight = draw(3, 3)
    g = lambda x: torch.sin(weight @ x)
    x = draw(300, 3) / 3
    norms = torch.linalg.matrix_norm(vmap(jacrev(g))(x), 2)
    L = torch.linalg.matrix_norm(weight, 2)  # that at 0
    assert norms.max() <= L + 1e-12 and norms.max() > 0.9 * L
    moved = vmap(g)(x)
    assert (torch.cdist(moved, moved) <= L * torch.cdist(x, x) + 1e-6).all()
    _, _, right = torch.linalg.svd(weight)
    assert torch.isclose(g(1e-5 * right[0]).norm() / 1e-5, L, rtol=1e-6)


def test_without_convexity_a_bounded_slope_is_no_lipschitz_constant():
    angle = lambda x: torch.atan2(x[1], x[0])  # the cut is the ray to the left
    near, far = matrix(-1.0, 1e-6), matrix(-1.0, -1e-6)
    assert max(jacrev(angle)(x).norm() for x in (near, far, matrix(0.5, 1.0), matrix(3.0, -1.0))) <= 1 + 1e-9
    assert (angle(near) - angle(far)) > 6 > (near - far).norm()


def test_mean_and_variance_of_a_probe():
    A = matrix([-1, 4], [0, -1])
    S = (A + A.mT) / 2
    signs = matrix([1, 1], [1, -1], [-1, 1], [-1, -1])
    values = torch.einsum("ki,ij,kj->k", signs, A, signs)
    diagonal = S.diagonal().square().sum()
    assert values.mean() == A.trace() == -2
    assert torch.isclose(values.var(correction=0), 2 * (S.square().sum() - diagonal))
    assert torch.isclose(2 * (S.square().sum() - diagonal), matrix(16.0))
    assert torch.isclose(2 * S.square().sum(), matrix(20.0))
    normals = torch.linalg.eigvalsh(S)  # η·Sη is the sum of these times squares of normals, of variance 2
    assert torch.isclose(2 * normals.square().sum(), matrix(20.0))
    says("a", "$2 \\times 10 = 20.0$", "$20 - 4 = 16.0$")


# Appendix B.


def test_projection_by_hand():
    p, x, y = matrix(0.25, 0.25, 0.375, 0.125), torch.tensor([0, 0, 1, 1]), matrix(1, 3, 4, 8)
    b = torch.stack([(p * y)[x == k].sum() / p[x == k].sum() for k in (0, 1)])[x]
    assert b.tolist() == [2, 2, 5, 5]
    mean = lambda values: (p * values).sum()
    inner, outer = mean((y - b) ** 2), mean((b - mean(y)) ** 2)
    assert (inner, outer, mean(y**2) - mean(y) ** 2) == (2, 2.25, 4.25)
    for v in (matrix(0, 0, 1, 1), matrix(-1, -1, 7, 7)):  # functions of x
        assert torch.isclose(mean((y - v) ** 2), inner + mean((b - v) ** 2))
        assert torch.isclose(mean(v * y), mean(v * b))


def test_tower_rule(draw):
    p = draw(3, 4, 5).exp()
    p, y = p / p.sum(), draw(3, 4, 5)  # x, c and the rest
    both = (p * y).sum(2) / p.sum(2)
    tower = (p.sum(2) * both).sum(1) / p.sum((1, 2))
    assert torch.allclose(tower, (p * y).sum((1, 2)) / p.sum((1, 2)))


def test_several_preimages():
    z = torch.linspace(0.01, 9, 50, dtype=torch.float64)
    ours = 2 * Normal(0, 1).log_prob(z.sqrt()).exp() / (2 * z.sqrt())
    assert torch.allclose(ours, torch.distributions.Chi2(matrix(1)).log_prob(z).exp())
    assert abs(math.exp(-0.5) / math.sqrt(2 * math.pi) - 0.242) < 5e-4


def kl(p, q):
    return (p * (p / q).log()).sum()


def test_divergences_of_finite_laws(draw):
    p, q = (torch.softmax(draw(12), 0).reshape(3, 4) for _ in range(2))
    px, qx = p.sum(1), q.sum(1)
    inner = torch.stack([kl(a / a.sum(), b / b.sum()) for a, b in zip(p, q)])
    assert torch.isclose(kl(p, q), kl(px, qx) + (px * inner).sum())
    channel = torch.softmax(draw(3, 5), 1)
    assert 0 < kl(px @ channel, qx @ channel) < kl(px, qx)
    shuffled = torch.randperm(3)
    assert torch.isclose(kl(px[shuffled], qx[shuffled]), kl(px, qx)) and kl(px, px) == 0


def test_the_divergences_by_hand():
    p, q = matrix(0.5, 0.3, 0.2), matrix(0.25, 0.25, 0.5)
    merged = kl(matrix(0.5, 0.5), matrix(0.25, 0.75))
    lost = kl(matrix(0.6, 0.4), matrix(1 / 3, 2 / 3))
    for value, said in ((kl(p, q), 0.218), (merged, 0.144), (lost, 0.148), (kl(q, p), 0.239)):
        assert abs(value - said) < 5e-4
        says("b", f"{said}")
    assert torch.isclose(kl(p, q), merged + lost / 2)


def test_entropy_and_its_largest_value(draw):
    laws = [
        (torch.distributions.Laplace(matrix(0.0), 1.3), 2 * 1.3**2),
        (torch.distributions.Uniform(matrix(0.0), 0.5), 1 / 48),
        (torch.distributions.Exponential(matrix(2.0)), 0.25),
    ]
    for law, variance in laws:
        assert law.entropy() < 0.5 * math.log(2 * math.pi * math.e * variance)
    assert abs(math.log(0.5) + 0.693) < 5e-4
    assert abs(0.5 * math.log(2 * math.pi * math.e / 48) + 0.517) < 5e-4
    S, A = positive(draw(3, 3)), draw(3, 3)
    entropy = lambda S: MultivariateNormal(torch.zeros(3).double(), S).entropy()
    assert torch.isclose(entropy(A @ S @ A.mT), entropy(S) + logdet(A))
    assert torch.isclose(entropy(S), 0.5 * logdet(2 * math.pi * math.e * S))
    given = S[2:, 2:] - S[2:, :2] @ torch.linalg.solve(S[:2, :2], S[:2, 2:])
    assert given.item() < S[2, 2]  # H(y | x) <= H(y)


def test_conditioning_a_gaussian(draw):
    m, S, x = draw(3), positive(draw(3, 3)), draw(3)
    gain = S[2:, :2] @ torch.linalg.inv(S[:2, :2])
    given = MultivariateNormal(m[2:] + gain @ (x[:2] - m[:2]), S[2:, 2:] - gain @ S[:2, 2:])
    joint, first = MultivariateNormal(m, S), MultivariateNormal(m[:2], S[:2, :2])
    assert torch.isclose(joint.log_prob(x), first.log_prob(x[:2]) + given.log_prob(x[2:]))


def test_divergence_of_gaussians(draw):
    (m0, m1), S0, S1 = draw(2, 3), positive(draw(3, 3)), positive(draw(3, 3))
    theirs = kl_divergence(MultivariateNormal(m0, S0), MultivariateNormal(m1, S1))
    assert torch.isclose(gauss_kl(m0, S0, m1, S1), theirs)
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    p, q = Normal(0.0, 1.0), Normal(1.0, 2.0)
    by_sum = (p.log_prob(grid).exp() * (p.log_prob(grid) - q.log_prob(grid))).sum() * (grid[1] - grid[0])
    one = lambda m, v: (matrix(m), matrix([v]))
    ours = gauss_kl(*one(0, 1), *one(1, 4))
    assert torch.isclose(ours, by_sum, atol=1e-5) and abs(ours - 0.443) < 5e-4
    assert abs(gauss_kl(*one(0, 1), *one(0, 4)) - 0.318) < 5e-4
    assert abs(gauss_kl(*one(0, 4), *one(0, 1)) - 0.807) < 5e-4
    says("b", "is 0.318, to the narrow one 0.807", "= 0.443$")


def test_pinsker(draw):
    for p, q in torch.softmax(2 * draw(200, 2, 6), -1):
        assert (p - q).abs().sum() <= (2 * (p * (p / q).log()).sum()).sqrt() + 1e-12
    p, q = matrix(0.5, 0.3, 0.2), matrix(0.25, 0.25, 0.5)
    assert torch.isclose((p - q).abs().sum(), matrix(0.6))
    assert abs((2 * (p * (p / q).log()).sum()).sqrt() - 0.660) < 5e-4
    says("b", "= 0.600$", "= 0.660$", "$0.3466 + 0.0547 - 0.1833 = 0.2180$")


@pytest.mark.parametrize("psi", [torch.exp, torch.abs, torch.square, lambda y: torch.relu(y - 0.3)])
def test_jensen_given_x_and_without(draw, psi):
    x, y = (draw(4000) > 0).long(), draw(4000)
    y = y * (1 + x) + x
    for group in (y[x == 0], y[x == 1], y):
        assert psi(group.mean()) <= psi(group).mean() + 1e-12


def test_stein(draw):
    """For a Gaussian in two dimensions by sums over a grid, and for a law that is not Gaussian on the line."""
    m, S = draw(2), positive(draw(2, 2))
    line = torch.linspace(-25, 25, 1001, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    weight = MultivariateNormal(m, S).log_prob(x).exp() * (line[1] - line[0]) ** 2
    psi = lambda x: torch.exp(-(x - 0.3).square().sum()) * torch.sin(x[0])
    value, slope = vmap(psi)(x), vmap(torch.func.grad(psi))(x)
    mean = lambda values: (weight[:, None] * values).sum(0)
    assert torch.allclose(mean(value[:, None] * (x - m)), S @ mean(slope), atol=1e-10)
    score = vmap(torch.func.grad(MultivariateNormal(m, S).log_prob))(x[:5])
    assert torch.allclose(score, -torch.linalg.solve(S, (x[:5] - m).mT).mT)
    rho = lambda x: (Normal(-1.0, 0.7).log_prob(x).exp() + Normal(2.0, 1.2).log_prob(x).exp()) / 2
    bump = lambda x: torch.exp(-((x - 0.4) ** 2))
    slope = lambda g: vmap(torch.func.grad(g))(line)
    left = (rho(line) * bump(line) * slope(lambda x: rho(x).log())).sum()
    assert torch.isclose(left, -(rho(line) * slope(bump)).sum())


def test_tweedie():
    alpha, beta, ends = 0.8, 0.6, matrix(-1.0, 1.0)
    rho = lambda x: Normal(beta * ends, alpha).log_prob(x).exp().mean()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    s = vmap(torch.func.grad(lambda x: rho(x).log()))(x)
    chance = torch.softmax(Normal(beta * ends, alpha).log_prob(x[:, None]), 1)
    data = chance @ ends
    noise = (chance * (x[:, None] - beta * ends) / alpha).sum(1)
    assert torch.allclose(alpha * s, -noise) and torch.allclose(beta * data, x + alpha**2 * s)
    at = torch.tanh(matrix(0.6 * 0.5 / 0.64))
    assert torch.isclose(data[5], at) and abs(at - 0.437) < 5e-4
    assert abs(s[5] + 0.371) < 5e-4
    says("b", "= 0.437$", "= -0.371$")


def test_the_density_of_an_absolute_value():
    assert abs(2 * Normal(0.0, 1.0).log_prob(torch.ones(())).exp() - 0.484) < 5e-4
    says("b", "= 0.484$")


def test_the_best_gaussian_has_the_moments(draw):
    """The forward divergence from a mixture, up to its entropy, is least at its mean and variance."""
    weights, means = matrix(0.3, 0.7), matrix(-2, 1)
    mean = (weights * means).sum()
    variance = 1 + (weights * (means - mean) ** 2).sum()
    cross = lambda a: a[1] / 2 + ((weights * (1 + (means - a[0]) ** 2)).sum()) / (2 * a[1].exp())
    best = torch.stack([mean, variance.log()])
    assert jacrev(cross)(best).abs().max() < 1e-12
    assert torch.linalg.eigvalsh(hessian(cross)(best)).min() > 0


def test_bures(draw):
    a, b = draw(4).exp(), draw(4).exp()
    turn = torch.linalg.qr(draw(4, 4)).Q
    S0, S1 = (turn * a) @ turn.mT, (turn * b) @ turn.mT  # they commute
    assert torch.isclose(bures(S0, S1), (a.sqrt() - b.sqrt()).square().sum())
    S0, S1 = positive(draw(4, 4)), positive(draw(4, 4))
    assert torch.isclose(bures(S0, S1), bures(S1, S0)) and abs(bures(S0, S0)) < 1e-9
    root = power(S0, -0.5)
    A = root @ power(power(S0, 0.5) @ S1 @ power(S0, 0.5), 0.5) @ root
    assert torch.allclose(A @ S0 @ A.mT, S1)  # the map of chapter 13, and its cost
    shift = A - torch.eye(4).double()
    assert torch.isclose((shift @ S0 @ shift.mT).trace(), bures(S0, S1))
    for _ in range(20):  # no Gaussian pairing of these covariances is cheaper
        R = torch.linalg.qr(draw(4, 4)).Q
        other = power(S1, 0.5) @ R @ power(S0, -0.5) - torch.eye(4).double()
        assert (other @ S0 @ other.mT).trace() >= bures(S0, S1) - 1e-9
    assert torch.isclose(
        bures(torch.diag(matrix(1, 4)), torch.diag(matrix(4, 1))), torch.tensor(2.0).double()
    )


def test_transport_on_the_line():
    tau = (torch.arange(400_000).double() + 0.5) / 400_000
    quantile = torch.special.ndtri(tau)
    assert abs((quantile - (1 + 2 * quantile)).square().mean() - 2) < 1e-3
    grid = torch.cat([torch.linspace(a - 8, a + 8, 40_001, dtype=torch.float64) for a in (0, 100)])
    mixed = 0.99 * torch.special.ndtr(grid) + 0.01 * torch.special.ndtr(grid - 100)
    place = torch.searchsorted(mixed, tau).clamp(max=len(grid) - 1)
    assert abs((quantile - grid[place]).square().mean().sqrt() - 9.73) < 5e-3
    x = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    p = Normal(0.0, 1.0).log_prob(x)
    far = torch.logaddexp(p + math.log(0.99), Normal(100.0, 1.0).log_prob(x) + math.log(0.01))
    assert abs((p.exp() * (p - far)).sum() * (x[1] - x[0]) - 0.01) < 1e-4
    y = torch.cat([x, x + 100])  # the two clusters of the mixture
    mixture = torch.logaddexp(
        Normal(0.0, 1.0).log_prob(y) + math.log(0.99), Normal(100.0, 1.0).log_prob(y) + math.log(0.01)
    )
    back = (mixture.exp() * (mixture - Normal(0.0, 1.0).log_prob(y))).sum() * (x[1] - x[0])
    assert abs(back - 49.9) < 0.05
    says("b", "9.73. The KL of pure from mixed is only 0.01, but that of mixed from pure is 49.9")


@pytest.mark.parametrize("psi", [torch.sin, torch.abs, lambda x: torch.relu(x - 0.3)])
def test_means_of_lipschitz_functions_are_within_the_distance(psi):
    quantile = torch.special.ndtri((torch.arange(100_000).double() + 0.5) / 100_000)
    for m, sigma in ((0.1, 1.0), (1.0, 2.0), (0.0, 0.2)):
        off = (psi(m + sigma * quantile).mean() - psi(quantile).mean()).abs()
        assert off <= math.hypot(m, sigma - 1) + 1e-6


def test_errors_of_means(draw):
    y = 1 + 2 * draw(20_000, 100)  # weights as on the page, in twenty thousand samples
    means = y.mean(1)
    assert abs(means.std() - 0.2) < 0.004
    weights = torch.distributions.Gamma(0.25, 0.25).sample((4000, 1000)).double()  # mean 1, deviation 2
    logs = weights.mean(1).log()
    assert abs(logs.std() - 0.063) < 0.004 and abs(logs.mean() + 0.002) < 0.004
    pair = draw(4000, 50, 2)
    pair[..., 1] = 0.99 * pair[..., 0] + math.sqrt(1 - 0.99**2) * pair[..., 1]
    gaps = (pair[..., 0] - pair[..., 1]).mean(1)
    assert abs(gaps.std() * math.sqrt(50) - math.sqrt(2 - 1.98)) < 0.006
    assert abs(1 / math.sqrt(20_000) - 0.0071) < 5e-5 and abs(math.sqrt(0.02 / 20_000) - 0.001) < 5e-5


# Appendix C.


def test_gronwall_bounds_the_error_of_a_field_and_is_reached(draw):
    bound = lambda C, L: C / L * (math.exp(L) - 1)
    assert abs(bound(0.1, 2) - 0.319) < 5e-4 and abs(bound(0.1, 5) - 2.95) < 5e-3
    solve = lambda f, x: CNF(f, solver=Fixed(400, rk4)).decode(x)
    start = draw(50, 1)
    line = lambda C: lambda t, x: 2 * x + C
    gap = solve(line(0.1), start) - solve(line(0.0), start)
    assert torch.allclose(gap, torch.full_like(gap, bound(0.1, 2)), atol=1e-8)
    true = lambda t, x: 2 * torch.sin(x + t)
    wrong = lambda t, x: true(t, x) + 0.1 * torch.cos(9 * x)
    assert 0 < (solve(true, start) - solve(wrong, start)).abs().max() <= bound(0.1, 2)
    apart = (solve(true, start) - solve(true, start + 0.3)).abs()
    assert (apart <= 0.3 * math.exp(2)).all() and (apart >= 0.3 * math.exp(-2)).all()


def test_liouville_on_a_pendulum():
    f = lambda t, x: torch.stack([x[:, 1], -torch.sin(x[:, 0]) - 0.1 * x[:, 1]], 1)
    flow = CNF(lambda t, x: 10 * f(t, x), solver=Fixed(400, rk4))  # ten units of time
    start = matrix([0.5, 0.0], [1.0, -0.4])
    Y = vmap(jacrev(lambda x: flow.decode(x[None])[0]))(start)
    assert torch.allclose(torch.linalg.det(Y), torch.full((2,), math.exp(-1)).double(), atol=1e-6)
    assert abs(math.exp(-1) - 0.368) < 5e-4


def test_the_jacobian_follows_its_equation(draw):
    f = lambda t, x: torch.sin(x @ matrix([0.3, 1.0], [-0.8, 0.1])) * (1 + t)
    J = lambda t, x: vmap(jacrev(lambda y: f(t, y[None])[0]))(x)
    start = draw(3, 2)

    def both(t, state):
        x, Y = state[:, :2], state[:, 2:].unflatten(1, (2, 2))
        return torch.cat([f(t, x), (J(t, x) @ Y).flatten(1)], 1)

    state = torch.cat([start, torch.eye(2).double().flatten().expand(3, 4)], 1)
    Y = CNF(both, solver=Fixed(100, rk4)).decode(state)[:, 2:].unflatten(1, (2, 2))
    flow = CNF(f, solver=Fixed(100, rk4))
    assert torch.allclose(Y, vmap(jacrev(lambda x: flow.decode(x[None])[0]))(start), atol=1e-7)
    assert torch.allclose(logdet(Y), flow.decode_and_logdet(start)[1], atol=1e-7)


def test_log_density_and_score_along_a_trajectory(draw):
    """Against the gradient of the density by the flow itself, on a field that is not linear."""
    weight = matrix([0.3, 1.0], [-0.8, 0.1])
    f = lambda t, x: torch.sin(x @ weight) * (1 + t)

    def rates(t, state):
        J = jacrev(lambda x: f(t, x[None])[0])
        x, s = state[:, :2], state[:, 2:4]
        slope, bend = vmap(J)(x), vmap(torch.func.grad(lambda x: J(x).trace()))(x)
        force = -torch.einsum("kij,ki->kj", slope, s) - bend
        return torch.cat([f(t, x), force, -slope.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)], 1)

    start = draw(3, 2)
    base = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    state = torch.cat([start, -start, base.log_prob(start)[:, None]], 1)
    end = CNF(rates, solver=Fixed(100, rk4)).decode(state)
    flow = CNF(f, solver=Fixed(100, rk4))

    def log_density(x):
        z, l = flow.encode_and_logdet(x[None])
        return (base.log_prob(z) + l)[0]

    assert torch.allclose(end[:, 4], vmap(log_density)(end[:, :2]), atol=1e-7)
    assert torch.allclose(end[:, 2:4], vmap(torch.func.grad(log_density))(end[:, :2]), atol=1e-6)
    assert abs(-math.exp(0.5) + 1.65) < 5e-3
    says("c", "is $-1.65$")


def test_variation_of_constants_and_the_adjoint():
    """A linear equation with a push: both formulas by their equations, solved, against the change itself."""
    J = lambda t: matrix([0.2, 1.0], [-1.0, 0.4]) * (1 + t)
    push = lambda t: torch.stack([torch.cos(3 * t), t])
    eye = torch.eye(2).double()

    def both(t, state):
        change, Y = state[:, :2], state[:, 2:6].unflatten(1, (2, 2))
        t = torch.as_tensor(t, dtype=torch.float64)
        inner = torch.linalg.solve(Y, push(t).expand(len(Y), 2))
        return torch.cat([change @ J(t).mT + push(t), (J(t) @ Y).flatten(1), inner], 1)

    start = matrix([0.3, -0.7])
    state = torch.cat([start, eye.flatten()[None], torch.zeros(1, 2).double()], 1)
    end = CNF(both, solver=Fixed(200, rk4)).decode(state)
    Y = end[0, 2:6].unflatten(0, (2, 2))
    assert torch.allclose(end[0, :2], Y @ (start[0] + end[0, 6:]), atol=1e-8)
    a0 = matrix(1.1, -0.2)

    def with_adjoint(t, state):
        t = torch.as_tensor(t, dtype=torch.float64)
        change, a = state[:, :2], state[:, 2:4]
        return torch.cat([change @ J(t).mT + push(t), -a @ J(t), (a @ push(t))[:, None]], 1)

    state = torch.cat([start, a0[None], torch.zeros(1, 1).double()], 1)
    last = CNF(with_adjoint, solver=Fixed(200, rk4)).decode(state)[0]
    assert torch.allclose(last[2:4], torch.linalg.solve(Y.mT, a0), atol=1e-8)
    assert torch.isclose(last[2:4] @ last[:2] - a0 @ start[0], last[4], atol=1e-8)
    s = (torch.arange(2000).double() + 0.5) / 2000
    both_ways = torch.exp(0.5 * (1 - s)) * torch.exp(0.5 * s)  # ∂x(1)/∂θ for ẋ = θx from 1, at θ = 1/2
    assert torch.isclose(both_ways.mean(), torch.func.grad(torch.exp)(matrix(0.5)[0]))


GRID = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
STEP = GRID[1] - GRID[0]


def density(tau: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """That of dx = -x dτ + √2 dW at the time τ since the data, ±2: Theorem C.8 with κ = ε = 1."""
    a, v = 2 * torch.exp(-tau), 1 - torch.exp(-2 * tau)
    bump = lambda m: torch.exp(-((x - m) ** 2) / (2 * v)) / torch.sqrt(2 * math.pi * v)
    return (bump(a) + bump(-a)) / 2


def score(tau: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """As in the code of the page."""
    a, v = 2 * torch.exp(-tau), 1 - torch.exp(-2 * tau)
    return (a * torch.tanh(a * x / v) - x) / v


T, X = torch.tensor(0.3).double(), torch.linspace(-3, 3, 41, dtype=torch.float64)
RATE = vmap(lambda x: torch.func.grad(lambda t: density(t, x))(T))(X)
along = lambda g: vmap(torch.func.grad(g))(X)


def test_the_score_of_the_page_is_that_of_the_density():
    assert torch.allclose(along(lambda x: density(T, x).log()), score(T, X))


def test_fokker_planck_and_the_probability_flow():
    second = vmap(torch.func.grad(torch.func.grad(lambda x: density(T, x))))(X)
    assert torch.allclose(RATE, -along(lambda x: density(T, x) * -x) + second, atol=1e-10)
    flux = lambda x: density(T, x) * (-x - score(T, x))
    assert torch.allclose(RATE, -along(flux), atol=1e-10)


def test_the_weak_forms():
    psi = lambda x: torch.exp(-((x - 0.5) ** 2))
    mean = lambda t, g: (density(t, GRID) * g).sum() * STEP
    moved = torch.func.grad(lambda t: mean(t, psi(GRID)))(T)
    slope = vmap(torch.func.grad(psi))(GRID)
    bend = vmap(torch.func.grad(torch.func.grad(psi)))(GRID)
    assert torch.isclose(moved, mean(T, -GRID * slope + bend), atol=1e-9)
    assert torch.isclose(moved, mean(T, (-GRID - score(T, GRID)) * slope), atol=1e-9)


@pytest.mark.parametrize("eps", [0.3, 1.0, 2.0])
def test_a_velocity_and_its_score_give_stochastic_equations(eps):
    """The drift b + ε s and the diffusion ε change the density at the same rate as b, for every ε."""
    drift = lambda x: -x - score(T, x) + eps * score(T, x)
    second = vmap(torch.func.grad(torch.func.grad(lambda x: density(T, x))))(X)
    assert torch.allclose(RATE, -along(lambda x: density(T, x) * drift(x)) + eps * second, atol=1e-10)


def test_the_reversed_process_has_the_densities_backward():
    """As t = 1 - τ rises the density obeys the Fokker-Planck equation of the reversed drift."""
    drift = lambda x: x + 2 * score(T, x)
    second = vmap(torch.func.grad(torch.func.grad(lambda x: density(T, x))))(X)
    assert torch.allclose(-RATE, -along(lambda x: density(T, x) * drift(x)) + second, atol=1e-10)
    flow = lambda x: density(T, x) * (x + score(T, x))  # the probability flow from noise to data
    assert torch.allclose(-RATE, -along(flow), atol=1e-10)


def test_reversal_of_an_ornstein_uhlenbeck_process_in_closed_form():
    """From N(0, v0): the reversed equation has the variances of x(1 - t), and its covariances with x(1)."""
    v0 = 3.0
    v = lambda tau: v0 * math.exp(-2 * tau) + 1 - math.exp(-2 * tau)  # Theorem C.8

    def rates(t, state):
        drift = 1 - 2 / v(1 - t.item())  # -f + 2 ε s at the place 1
        return torch.stack([2 * drift * state[:, 0] + 2, drift * state[:, 1]], 1)

    for t in (0.3, 0.9):
        slower = lambda u, state, t=t: t * rates(t * u, state)
        variance, covariance = CNF(slower, solver=Fixed(100, rk4)).decode(matrix([v(1), v(1)]))[0]
        assert torch.isclose(variance, matrix(v(1 - t)))
        assert torch.isclose(covariance, matrix(math.exp(-t) * v(1 - t)))


def test_reversed_brownian_motion_goes_home():
    """Given its end, Brownian motion is a bridge: the drift of the page is that of its mean."""
    x, t, h = 0.8, 0.5, 1e-6
    at, then = 1 - t, 1 - t - h  # times of x: E[x(then) | x(at)] by Theorem B.5a
    assert math.isclose((then / at * x - x) / h, -x / (1 - t), rel_tol=1e-6)
    says("c", "pulled by $-1.60$")


def test_an_ito_integral_has_the_correction_and_the_isometry(draw):
    n = 400
    dW = draw(5000, n) / math.sqrt(n)
    W = dW.cumsum(1) - dW  # the left ends
    integral, end = (W * dW).sum(1), dW.sum(1)
    assert (integral - (end**2 - 1) / 2).square().mean().sqrt() < 0.04
    assert abs(integral.mean()) < 0.04 and abs(integral.square().mean() - 0.5) < 0.08  # E∫W² dt = 1/2


@pytest.mark.parametrize(("kappa", "eps"), [(1.0, 1.0), (2.5, 0.3)])
def test_moments_of_an_ornstein_uhlenbeck_process(kappa, eps):
    """Mean and variance by their equations, solved; the covariance by the regression of each step."""
    rates = lambda t, y: torch.stack([-kappa * y[:, 0], -2 * kappa * y[:, 1] + 2 * eps], 1)
    end = CNF(rates, solver=Fixed(200, rk4)).decode(matrix([2.0, 0.0]))[0]
    assert torch.isclose(end[0], matrix(2 * math.exp(-kappa)))
    assert torch.isclose(end[1], matrix(eps / kappa * (1 - math.exp(-2 * kappa))))
    h, n = 1e-3, 1000
    keep, variance = (1 - kappa * h) ** n, 2 * eps * h / (1 - (1 - kappa * h) ** 2)  # of Euler's chain
    assert abs(keep * variance - eps / kappa * math.exp(-kappa)) < 2e-3
    assert abs(2 * math.exp(-0.5) - 1.21) < 5e-3 and abs(1 - math.exp(-1) - 0.632) < 5e-4


def chain(drift: float, start: float, steps: int, eps: float) -> torch.Tensor:
    """The covariance of Euler's chain for dx = -drift x dt + √(2 eps) dW: all places of a path."""
    h = 1 / steps
    step = torch.eye(steps + 1).double() - (1 - drift * h) * torch.diag(torch.ones(steps), -1).double()
    noise = torch.full((steps + 1,), 2 * eps * h).double()
    noise[0] = start
    inverse = torch.linalg.inv(step)
    return inverse @ torch.diag(noise) @ inverse.mT


def test_girsanov_on_two_ornstein_uhlenbeck_processes():
    """The paths of Euler's chains are Gaussian vectors: their divergence tends to the formula, 1/4 E x²."""
    zero = torch.zeros(401).double()
    paths = gauss_kl(zero, chain(1.0, 1.0, 400, 1.0), zero, chain(2.0, 1.0, 400, 1.0))
    assert abs(paths - 0.25) < 2e-3
    v = math.exp(-4) + (1 - math.exp(-4)) / 2
    end = (1 / v - 1 + math.log(v)) / 2
    assert abs(v - 0.509) < 5e-4 and abs(end - 0.145) < 5e-4 and end < 0.25
    says("c", "The paths' divergence is $\\frac14 E\\, x^2 = 0.250$", "= 0.145$")


@pytest.mark.parametrize("eps", [0.5, 2.0])
def test_girsanov_for_a_constant_drift(draw, eps):
    """log dP/dP^ is x(1)·c/(2ε) - c²/(4ε), of mean c²/(4ε) under P; the end tells as much as the path."""
    c = 0.7
    formula = c**2 / (4 * eps)
    end = kl_divergence(Normal(matrix(c), math.sqrt(2 * eps)), Normal(matrix(0.0), math.sqrt(2 * eps)))
    assert torch.isclose(end, matrix(formula))
    W = draw(200_000)
    x = c + math.sqrt(2 * eps) * W
    log_ratio = c / math.sqrt(2 * eps) * W + formula  # the box
    ends = Normal(c, math.sqrt(2 * eps)).log_prob(x) - Normal(0.0, math.sqrt(2 * eps)).log_prob(x)
    assert torch.allclose(log_ratio, ends)
    assert abs((-log_ratio).exp().mean() - 1) < 0.02


def test_novikov_of_the_example():
    """By Jensen over time the mean is at most E exp(x²/4), which is √2."""
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    mean = (Normal(0.0, 1.0).log_prob(x) + x**2 / 4).exp().sum() * (x[1] - x[0])
    assert torch.isclose(mean, matrix(2.0).sqrt(), atol=1e-6)


def test_brownian_motion_has_the_probability_flow_of_the_page():
    flow = lambda t, x: 0.75 * x / (2 * (0.25 + 0.75 * t))  # from the time 1/4 to 1
    start = CNF(flow, solver=Fixed(50, rk4)).encode(matrix([1.2]))
    assert abs(start.item() - 0.6) < 1e-6
    says("c", "at $t = 0.25$ it is at $0.600$")


def test_a_divergence_along_two_fields_without_noise():
    """On Gaussians by the example of the page, and on mixtures that two linear fields carry."""
    closed = lambda t: (torch.exp(2 * t) - 1 - 2 * t) / 2
    zero = torch.zeros(1).double()
    for t in matrix(0.3, 0.5, 1.0):
        p, q = torch.exp(-2 * t), torch.exp(-4 * t)
        assert torch.isclose(gauss_kl(zero, p[None, None], zero, q[None, None]), closed(t))
        assert torch.isclose(torch.func.grad(closed)(t), p * (1 / q - 1 / p))  # E x·(x/q - x/p)
    assert abs(closed(t) - 2.19) < 5e-3
    says("c", "at $t = 1$ it is 2.19")
    first = lambda x: (Normal(-1.0, 0.6).log_prob(x).exp() + Normal(1.5, 0.8).log_prob(x).exp()) / 2
    moved = lambda t, rate, x: first(x * torch.exp(-rate * t)) * torch.exp(-rate * t)  # of ẋ = rate · x
    x = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    p, q = lambda t, x: moved(t, 0.3, x), lambda t, x: moved(t, -0.2, x)
    divergence = lambda t: (p(t, x) * (p(t, x) / q(t, x)).log()).sum() * (x[1] - x[0])
    t = matrix(0.4)[0]
    slope = lambda g: vmap(torch.func.grad(lambda x: g(t, x).log()))(x)
    right = (p(t, x) * 0.5 * x * (slope(p) - slope(q))).sum() * (x[1] - x[0])
    assert torch.isclose(torch.func.grad(divergence)(t), right, atol=1e-6)


def test_a_process_that_adds_noise_is_an_interpolant():
    """The weights of Theorem C.8 with ε = κ, at τ = 1 - t."""
    kappa, tau = 1.7, 0.35
    beta, alpha = math.exp(-kappa * tau), math.sqrt(1 - math.exp(-2 * kappa * tau))
    assert math.isclose(alpha**2 + beta**2, 1)
    says("c", "$\\beta = e^{-\\kappa\\tau}$", "$\\alpha = \\sqrt{1 - e^{-2\\kappa\\tau}}$", "$\\tau = T - t$")
