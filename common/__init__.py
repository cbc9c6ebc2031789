"""What the scripts share. `import common` comes before `import jittor`.

The import prepares Jittor's environment (jittor_setup): oneDNN, compiler and GPU.
"""

from common import interrupt

import jittor_setup

interrupt.end_in_one_line()
jittor_setup.prepare()
jittor_setup.import_jittor()
interrupt.end_in_one_line()  # again, since Jittor installs its own
interrupt.give_back_to_python()

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
