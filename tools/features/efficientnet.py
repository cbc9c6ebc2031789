"""EfficientNet-Lite0, for features of photographs if Inception's weights are missing.

Distances between its features compare models with each other; they are not FIDs or KIDs
as published. The network is that of common/efficientnet.py.
"""

from common.efficientnet import INSTALL, N_FEATURES, load_efficientnet
from common.predict import predict

import numpy as np

SIZE = 224
WHERE = f"--features efficientnet, whose weights come by '{INSTALL}'"


class EfficientNetFeatures:
    """EfficientNet-Lite0 with the weights of the installed package, or of a file.

    Args:
        path: a file like the package's.

    Raises:
        UserError: the package is missing, or its file is damaged or holds another
            network.
    """

    size = SIZE
    channels = 3
    description = f"{N_FEATURES} of EfficientNet-Lite0 (not comparable with published FIDs)"

    def __init__(self, path=None):
        self.network = load_efficientnet(path)

    def __call__(self, pixels):
        """Features (N, 1280) of (N, 3, 224, 224) uint8 images, and None.

        The second is where a classifier of digits has probabilities.
        """
        images = (pixels.astype(np.float32) - 127) / 128
        return predict(self.network, images, chunk=10), None
