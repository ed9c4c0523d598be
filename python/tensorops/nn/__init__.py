"""torch.nn, with modules of our own where we have a kernel: same constructors, state_dict, repr and pickles."""

from torch.nn import *  # noqa: F403

from . import functional, modules
from ._alias import install
from .modules import *  # noqa: F403

install()


def __getattr__(name: str) -> object:
    """What `import *` leaves out of torch.nn."""
    import torch.nn

    return getattr(torch.nn, name)
