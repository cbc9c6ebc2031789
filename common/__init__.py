"""What the scripts share. `import common` comes before `import jittor`.

The import prepares Jittor's environment (jittor_setup): oneDNN, compiler and GPU.
"""

from common import interrupt

interrupt.end_in_one_line()  # before anything that takes time

import jittor_setup  # noqa: E402

jittor_setup.prepare()
interrupt.import_jittor()

from common.cli import Parser  # noqa: E402
from common.ema import EMA  # noqa: E402
from common.errors import UserError, escape_on_streams  # noqa: E402
from common.functions import check_same_shape, halvings, linear_decay, step_decay  # noqa: E402
from common.images import save_image  # noqa: E402
from common.predict import predict  # noqa: E402
from common.run import Run  # noqa: E402
from common.translation import translate_folder  # noqa: E402

from jittor_setup import choose_device  # noqa: E402

escape_on_streams()

__all__ = [
    "EMA",
    "Parser",
    "Run",
    "UserError",
    "check_same_shape",
    "choose_device",
    "halvings",
    "linear_decay",
    "predict",
    "save_image",
    "step_decay",
    "translate_folder",
]
