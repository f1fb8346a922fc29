"""Programs that several tests share; exports take seconds, so they are made once per session."""

from __future__ import annotations

from collections.abc import Iterator

# Its compiled part crashes when it is loaded after ExecuTorch's runtime, which pytest's plugin would do.
import hypothesis  # noqa: F401
import pytest

from exporters import Plan, Program, Task, export
from exporters.zoo import digits
from mobile_sdk.layout import Slice, Subset
from tests.exporters.export_tasks import tiny_task


# Ends with the package, not with the session: other packages' tests, which may follow in this process, find what is
# kept in the user's own cache.
@pytest.fixture(scope="package", autouse=True)
def no_earlier_exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """These tests start with an empty cache of exports, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny() -> Task:
    return tiny_task()


@pytest.fixture(scope="session")
def tiny_program(tiny: Task) -> Program:
    """The tiny task's program, everything trained."""
    return export(tiny)


@pytest.fixture(scope="session")
def digits_program() -> Program:
    """The digits task's program, everything trained."""
    return export(digits.task)


@pytest.fixture(scope="session")
def sliced_program(tiny: Task) -> Program:
    """Two output channels of the convolution, every third input of the linear layer, and its bias."""
    choice = {"0.weight": Slice(0, (1, 3)), "3.weight": Slice(1, tuple(range(0, 144, 3))), "3.bias": None}
    return export(tiny, plan=Plan(Subset(tiny.layout, choice), 4))
