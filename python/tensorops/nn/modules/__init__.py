"""torch.nn.modules, with ours in the place of those that we have a kernel for; files are named as there."""

from torch.nn.modules import *  # noqa: F403
from torch.nn.modules import __all__ as __all__

from . import activation, container, conv, linear, loss, pooling
from .activation import *  # noqa: F403
from .container import *  # noqa: F403
from .conv import *  # noqa: F403
from .linear import *  # noqa: F403
from .loss import *  # noqa: F403
from .pooling import *  # noqa: F403

OURS = (
    *activation.__all__,
    *container.__all__,
    *conv.__all__,
    *linear.__all__,
    *loss.__all__,
    *pooling.__all__,
)
