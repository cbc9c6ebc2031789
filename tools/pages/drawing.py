"""Models that draw from noise, from labels, from codes or from sentences.

A page's seed is the seed of the samples of its script: with the seed of the run (0
unless --seed says otherwise) it shows the pictures of result.png.
"""

import common
from common.data.captions import encode
from common.run import latent_noise

import numpy as np

from tools.explore import UNIFORM, Model
from tools.pages.networks import as_picture
from tools.pages.reading import labels_of, seed_of, sentence_of, slider_value

N_STEPS = 100  # of a walk's slider
N_ON_THE_WAY = 9  # images of a walk's strip
LARGEST_CODE = 2  # of a slider, as in the panels of infogan.py
N_NOISES = 8  # of the same codes or of the same sentence
N_OF_TWO_STAGES = 4  # of a sentence, if each of them has two stages


def rng_of(seed):
    """The numpy generator of a run's samples."""
    return np.random.default_rng([seed, 3])


def noise_kind(args):
    """ "normal" or "uniform", of a script's noise."""
    return getattr(args, "noise", "uniform" if args.script in UNIFORM else "normal")


class Walk:
    """A model that draws from noise alone: a walk from one seed to another.

    Args:
        run: a `TrainedRun`.
    """

    def __init__(self, run):
        self.args = run.args
        has_decoder = "decoder" in run.networks
        network = run.networks["decoder" if has_decoder else "generator"]

        def draw(z):
            if has_decoder:
                return run.script.decode(network, z)
            return common.predict(network, z)

        self.model = Model(
            network=network,
            draw=draw,
            takes_noise_alone=True,
            kind=noise_kind(run.args),
            latent_dim=run.args.latent_dim,
            rng=None,
        )

    def path(self, first, second, steps):
        """Noise (steps, latent_dim) from that of one seed to that of another."""
        ends = []
        for text in (first, second):
            z = latent_noise(rng_of(seed_of(text)), self.model.kind, 1, self.model.latent_dim)
            ends.append(z[0])
        return self.model.path_between(*ends, steps)

    def draw(self, first, second, position):
        """The picture at a position from 0 to N_STEPS between two seeds."""
        z = self.path(first, second, N_STEPS + 1)
        index = round(slider_value(position, 0, N_STEPS))
        return as_picture(self.model.draw(z[index : index + 1]))

    def draw_strip(self, first, second):
        """N_ON_THE_WAY pictures from the first seed to the second, in a row."""
        return as_picture(self.model.draw(self.path(first, second, N_ON_THE_WAY)), N_ON_THE_WAY)

    def warm_up(self):
        self.draw("0", "1", 0)
        self.draw_strip("0", "1")


class Number:
    """A model that draws labels: a number of digits.

    Args:
        run: a `TrainedRun`.
    """

    def __init__(self, run):
        self.args = run.args
        self.script = run.script
        self.networks = run.networks
        self.n_labels = run.args.n_classes

    def example(self):
        """A text that `draw` takes."""
        if self.n_labels <= 10:
            return "0123456789"[: self.n_labels]
        return " ".join(str(label) for label in range(10))

    def draw(self, text, seed):
        """The labels of a text, in rows of at most 20."""
        labels = labels_of(text, self.n_labels)
        rng = rng_of(seed_of(seed))
        if self.args.script == "sgan":  # two generators
            images = self.script.draw(list(self.networks.values()), labels, rng, self.args)
        else:
            z = latent_noise(rng, noise_kind(self.args), len(labels), self.args.latent_dim)
            images = common.predict(self.networks["generator"], z, labels)
        return as_picture(images, 20)

    def warm_up(self):
        self.draw(self.example(), "0")
        self.draw("0", "0")  # a batch of one has kernels of its own


class Codes:
    """A model that draws from a category and continuous codes.

    Args:
        run: a `TrainedRun`.
    """

    def __init__(self, run):
        self.args = run.args
        self.generator = run.networks["generator"]
        self.n_categories = run.args.n_categories
        self.n_continuous = getattr(run.args, "n_continuous", 0)

    def draw(self, seed, category, *continuous):
        """N_NOISES images of the same codes, with different noise."""
        slider_value(category, 0, self.n_categories - 1)
        for value in continuous:
            slider_value(value, -LARGEST_CODE, LARGEST_CODE)
        rng = rng_of(seed_of(seed))
        z = latent_noise(rng, noise_kind(self.args), N_NOISES, self.args.latent_dim)
        conditions = [np.full(N_NOISES, round(category), np.int32)]
        if self.n_continuous:
            conditions.append(np.tile(np.float32(continuous), (N_NOISES, 1)))
        return as_picture(common.predict(self.generator, z, *conditions), N_NOISES // 2)

    def warm_up(self):
        self.draw("0", 0, *[0.0] * self.n_continuous)


class Sentence:
    """A model that draws what a sentence says, in one stage or in two.

    Args:
        run: a `TrainedRun`.
    """

    def __init__(self, run):
        self.args = run.args
        self.script = run.script
        self.networks = run.networks
        self.has_stages = "generator2" in run.networks

    def examples(self):
        """Sentences of the training's pictures."""
        return list(self.args.text or [])

    def draw(self, text, seed):
        """The picture of a sentence, and a remark or None."""
        sentence, remark = sentence_of(text)
        rng = rng_of(seed_of(seed))
        draw = self.two_stages if self.has_stages else self.one_stage
        return draw(sentence, rng), remark

    def one_stage(self, sentence, rng):
        codes = common.predict(self.networks["text_encoder"], encode([sentence]))
        z = rng.standard_normal((N_NOISES, self.args.latent_dim), dtype=np.float32)
        codes = codes.repeat(N_NOISES, axis=0)
        return as_picture(common.predict(self.networks["generator"], z, codes), N_NOISES // 2)

    def two_stages(self, sentence, rng):
        """A row of stage I, enlarged, above a row of stage II."""
        n = N_OF_TWO_STAGES
        texts = [sentence] * n
        sizes = (self.args.latent_dim, self.script.N_C, self.script.N_C)
        rows = self.script.N_COLUMNS  # of the noise of result.png
        z, e1, e2 = (rng.standard_normal((rows, size), dtype=np.float32)[:n] for size in sizes)
        encoders = self.networks["encoders"]
        generator1 = self.networks["generator1"]
        generator2 = self.networks["generator2"]
        small = self.script.draw_stage1(encoders, generator1, texts, z, e1)
        large = self.script.draw_stage2(encoders, generator2, texts, small, e2)
        enlarged = self.script.enlarge(small, self.args.scale)
        return as_picture(np.concatenate([enlarged, large]), n)

    def warm_up(self):
        self.draw("a", "0")
