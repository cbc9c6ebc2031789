"""What every script shares. `import common` comes before `import jittor`: it prepares Jittor's environment."""

from common import environment

environment.prepare()
environment.import_jittor()

from common.checkpoint import EMA  # noqa: E402
from common.data import Batches  # noqa: E402
from common.errors import UserError  # noqa: E402
from common.flags import Parser, number  # noqa: E402
from common.pictures import save_image  # noqa: E402
from common.run import Run  # noqa: E402

__all__ = ["Batches", "EMA", "Parser", "Run", "UserError", "number", "save_image"]
