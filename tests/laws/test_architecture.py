"""The shape of the library: who imports whom, what is public, and that everything public is documented."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cnflib

ROOT = Path(cnflib.__file__).parent
files = {
    ".".join(("cnflib", *p.relative_to(ROOT).with_suffix("").parts)): p for p in sorted(ROOT.rglob("*.py"))
}
modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
public = [name for name in modules if "._" not in name]
every = pytest.mark.parametrize("name", modules)
each = pytest.mark.parametrize("name", public)

BASE = {
    "cnflib",
    *(f"cnflib._{name}" for name in ("check", "check_field", "check_sizes", "constants", "field", "random")),
    *(f"cnflib._{name}" for name in ("settings", "tensors", "words")),
}
FOUNDATION = BASE | {
    "cnflib._context",
    "cnflib._methods",
    "cnflib.bijection",
    "cnflib.density",
    "cnflib.distributions",
    "cnflib.flow",
    "cnflib.nets",
}
ALLOWED = {  # each group may import itself, and these
    "foundation": set(),
    "ode": {"base"},
    "data": {"foundation"},
    "metrics": {"base"},
    "plot": {"foundation", "metrics"},
    "train": {"foundation"},
    "discrete": {"foundation"},
    "continuous": {"foundation", "ode", "metrics"},  # a likelihood is summed up as an Estimate
    "interpolants": {"foundation", "ode"},
    "models": {"foundation", "ode", "discrete", "continuous", "interpolants"},
    "adapters": {"foundation"},
    "audit": {"foundation", "ode", "discrete", "continuous", "interpolants"},
}
EXCEPTIONS = {
    ("cnflib.interpolants.sampling", "continuous"),
    ("cnflib.interpolants.likelihood", "continuous"),  # the divergence, as a solve takes it
}


def group(module):
    if module in FOUNDATION or module.startswith("cnflib.nets."):
        return "foundation"
    return module.split(".")[1]


def imports(path):
    """Names of all modules that a file imports, anywhere in it; ``from a import b`` counts as a.b where that is one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in names)


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def definitions(name):
    """Public classes and functions that a module defines itself; a target of data is built from parts of its own."""
    module = importlib.import_module(name)
    members = {
        k: v for k, v in vars(module).items() if not name.startswith("cnflib.data.") or k in module.__all__
    }
    return {
        key: value
        for key, value in members.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
        and not key.startswith("_")
        and key == value.__name__
    }


@every
def test_imports_go_one_way(name):
    for module in imports(modules[name]):
        if module.split(".")[0] != "cnflib":
            continue
        assert module in modules, f"{name} imports {module}, which does not exist"
        wanted = group(module)
        permitted = ALLOWED[group(name)] | {group(name)}
        if module in BASE - {"cnflib"} and "base" in permitted:
            continue
        assert wanted in permitted or (name, wanted) in EXCEPTIONS, f"{name} must not import {module}"


@every
def test_the_library_imports_nothing_of_the_book_and_its_tests(name):
    roots = {module.split(".")[0] for module in imports(modules[name])}
    assert not roots & {"book", "chapters", "tests", "benchmarks", "pytest", "registry", "IPython"}


def test_no_module_imports_itself_in_a_circle():
    graph = {name: {m for m in imports(path) if m in modules} for name, path in modules.items()}
    settled = set()
    while ready := {name for name, needs in graph.items() if name not in settled and needs <= settled}:
        settled |= ready
    assert settled == set(modules)


@each
def test_all_lists_what_is_public_in_order(name):
    module = importlib.import_module(name)
    names = module.__all__
    assert [n for n in names if not hasattr(module, n)] == []
    by_case = sorted(
        names, key=lambda n: (not n.isupper(), not n[0].isupper(), n)
    )  # CONSTANT, Class, function
    assert list(names) == by_case
    assert len(set(names)) == len(names)
    if modules[name].name != "__init__.py":
        assert set(definitions(name)) <= set(names)


@pytest.mark.parametrize("name", [n for n in public if modules[n].name == "__init__.py"])
def test_a_package_re_exports_what_its_modules_make_public(name):
    module = importlib.import_module(name)
    offered = {key for m in public if m.startswith(f"{name}.") for key in importlib.import_module(m).__all__}
    assert set(module.__all__) - set(vars(module)) == set()
    own = {m.rpartition(".")[2] for m in public}
    assert set(module.__all__) <= offered | own
    assert {n for n in dir(module) if n[:2] != "__"} <= set(module.__all__) | (
        own if name == "cnflib" else set()
    )


def test_the_types_of_the_interface_stand_where_the_design_puts_them():
    interface = {
        "cnflib": "Bijection Chain Inverse Standardize Flow StandardNormal DiagonalNormal GaussianMixture Density "
        "as_density tempered",
        "cnflib.ode": "solve Result Adaptive Fixed TorchDiffEq SolveError Tableau dopri5 dopri8 bosh3 adaptive_heun "
        "rk4 euler midpoint heun",
        "cnflib.discrete": "Coupling Additive Affine RationalQuadratic Elementwise MADE MaskedAutoregressive Planar "
        "Radial Squeeze Split ActNorm InvertibleConv1x1 Dequantize Logit Residual Contraction checkerboard_mask halves",
        "cnflib.continuous": "CNF Solution Local Cost Exact Hutchinson HutchPP Bottleneck Rademacher Gaussian "
        "TrainEval KineticEnergy JacobianFrobenius PathDerivative log_prob_and_costs log_prob_with_error "
        "log_prob_at in_chunks",
        "cnflib.interpolants": "Interpolant PathPoint Linear Trigonometric EncodingDecoding Mirror OneSided "
        "VariancePreserving Bridge Parabola SineSquared Sigmoid Constant IndependentPairing Paired OptimalTransport "
        "Sinkhorn ConditionalPairing UniformTimes BetaTimes ImportanceTimes velocity_loss velocity_objective monitor "
        "score_loss denoiser_loss sample_ode sample_sde reflow guided drop_context score_from_velocity "
        "velocity_from_score denoiser_from_score score_from_denoiser Oracle LearnableInterpolant path_energy "
        "transport_gap TimeLogDensity best_diffusion continuity_residual path_measure_bound score_residual FlowMap "
        "AverageVelocity time_pairs lagrangian_loss eulerian_loss mean_flow_loss semigroup_loss consistency_loss "
        "sample_map map_residuals Masked UniformNoise mean_rate posterior_loss elbo sample_jumps sample_first_hitting",
        "cnflib.nets": "MLP ConvNet UNet Conditioner VectorField",
        "cnflib.models": "gaussian planar_flow radial_flow nice realnvp glow maf iaf spline_flow residual_flow ffjord",
        "cnflib.adapters": "given time_first time_second time_as_feature data_first",
        "cnflib.audit": "audit_bijection audit_gradients",
    }
    for module, names in interface.items():
        assert set(names.split()) <= set(importlib.import_module(module).__all__)


@each
def test_everything_public_has_a_docstring_and_annotations(name):
    assert importlib.import_module(name).__doc__, name
    for key, value in definitions(name).items():
        assert inspect.getdoc(value), f"{name}.{key} has no docstring"
        for label, function in functions(key, value):
            signature = inspect.signature(function)
            parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
            missing = [p.name for p in parameters if p.annotation is p.empty]
            assert not missing, f"{name}.{label}: {missing} not annotated"
            assert signature.return_annotation is not signature.empty, f"{name}.{label}: result not annotated"


def functions(key, value):
    """The function itself, or a class's own public methods, which its source annotates."""
    if inspect.isfunction(value):
        return [(key, value)]
    methods = {
        k: v for k, v in vars(value).items() if inspect.isfunction(v) and (k == "__init__" or k[0] != "_")
    }
    written = inspect.getsource(value)
    return [(f"{key}.{k}", v) for k, v in methods.items() if re.search(rf"def {k}\(", written)]


@every
def test_nothing_global_is_seeded_or_set(name):
    forbidden = (
        "manual_seed",
        "seed_all",
        "random.seed",
        "set_default_dtype",
        "set_default_device",
        "set_num_threads",
    )
    seeders = [
        call
        for call in calls(modules[name])
        if call.endswith(forbidden) and not call.startswith("Generator(")
    ]
    assert not seeders


@every
def test_settings_are_read_from_objects_and_not_from_partial_functions(name):
    tree = ast.walk(ast.parse(modules[name].read_text()))
    read = [node for node in tree if isinstance(node, ast.Attribute) and node.attr == "keywords"]
    assert not read or name == "cnflib._tensors"  # which maps the tensors in whatever it is given


@every
def test_asserts_are_for_tests(name):
    assert not [
        node for node in ast.walk(ast.parse(modules[name].read_text())) if isinstance(node, ast.Assert)
    ]


def test_importing_the_library_is_light_and_submodules_load_on_first_use():
    code = "import sys, cnflib; cnflib.models.realnvp(dim=2), cnflib.interpolants; print(dir(cnflib), *sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"matplotlib", "seaborn", "sklearn", "pandas"} & set(shown.split())
    assert "cnflib.discrete" in shown.split() and "'audit'" in shown


def test_a_submodule_that_does_not_exist_is_named():
    with pytest.raises(AttributeError, match="no attribute 'modles'.*models"):
        _ = cnflib.modles


@pytest.mark.parametrize("name", ["CNF", "velocity_loss", "given"])
def test_a_name_of_a_submodule_is_found_by_the_hint(name):
    home = {"CNF": "continuous", "velocity_loss": "interpolants", "given": "adapters"}[name]
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; it is cnflib\.{home}\.{name}\."):
        getattr(cnflib, name)
