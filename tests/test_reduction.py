"""The reduction family: what is asked of every case, over its table."""

import pytest
import tensorops
import torch

from tests.generic import *  # noqa: F403

FAMILY = "reduction"


@pytest.mark.parametrize(
    "op", ["sum", "mean", "amax", "var", "prod", "logsumexp", "cumsum", "cumprod", "softmax", "log_softmax"]
)
@pytest.mark.parametrize("devices", [("cpu", "meta"), ("meta", "cpu")], ids=str)
def test_out_on_another_device_refused(op: str, devices: tuple[str, str]) -> None:
    """Some of torch's write nothing there and say so not."""
    x = torch.ones(3, 4, device=devices[0])
    out = torch.empty_like(getattr(tensorops, op)(x, 0), device=devices[1])
    with pytest.raises(RuntimeError, match=f"{op}.*: input is on {devices[0]}, out= on {devices[1]}"):
        getattr(tensorops, op)(x, 0, out=out)
