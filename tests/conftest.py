"""One thread for each process, since tests run side by side; the mark of slow tests; figures and seeds set back."""

import os
import sys
from collections.abc import Iterator

import matplotlib
import pytest
from slow import slow

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what tests/slow.txt names."""
    names = slow()
    for item in items:
        if item.nodeid.partition("[")[0] in names:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def settings_of_figures_are_restored() -> Iterator[None]:
    """The style of the book, once used, holds for the process: the next file on this worker must not see it."""
    with matplotlib.rc_context():
        yield


@pytest.fixture(autouse=True)
def torch_draws_the_same_in_any_order() -> None:
    """What a test draws without a generator must not hang on the tests that ran before it on this worker."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def nothing_is_compiled_yet() -> None:
    """What torch compiled of a function counts against its limit in the process: files must not share the count."""
    if "torch._dynamo" in sys.modules:
        import torch  # not above, where threads are not set yet

        torch.compiler.reset()
