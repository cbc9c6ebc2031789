"""What every script shares. `import common` comes before `import jittor`: it prepares Jittor's environment."""

import jittor_setup

jittor_setup.prepare()
jittor_setup.import_jittor()

from common.data import Batches, batch_mean  # noqa: E402
from common.errors import UserError  # noqa: E402
from common.flags import Parser, number  # noqa: E402
from common.networks import EMA, describe, halvings, in_chunks  # noqa: E402
from common.pictures import save_image, translate_folder  # noqa: E402
from common.run import Run  # noqa: E402

__all__ = [
    "EMA",
    "Batches",
    "Parser",
    "Run",
    "UserError",
    "batch_mean",
    "describe",
    "halvings",
    "in_chunks",
    "number",
    "save_image",
    "translate_folder",
]
