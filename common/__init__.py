"""What every script shares. `import common` comes before `import jittor`: it prepares Jittor's environment."""

from common import jittor_env

jittor_env.prepare()
jittor_env.import_jittor()

from common.checkpoint import EMA  # noqa: E402
from common.datasets import Batches, load_digits  # noqa: E402
from common.errors import UserError  # noqa: E402
from common.flags import Parser, number  # noqa: E402
from common.images import save_image  # noqa: E402
from common.latent import latent_noise  # noqa: E402
from common.run import Run  # noqa: E402

__all__ = ["Batches", "EMA", "Parser", "Run", "UserError", "latent_noise", "load_digits", "number", "save_image"]
