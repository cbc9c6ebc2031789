"""Which page a run gets. What its script takes decides, not its name."""

from common.errors import UserError

from tools.pages.drawing import Codes, Number, Sentence, Walk
from tools.pages.objects import ObjectPainter
from tools.pages.painting import AttributeEditor, Enlarger, HoleFiller, MapPainter, Translator


def kind_of(args):
    """The class of the model for a run's page.

    Args:
        args: the run's arguments. A flag says what the networks take: --text_dim the
            code of a sentence, --latent_dim noise, and so on.

    Raises:
        UserError: there is no page for such a run.
    """
    flags = vars(args)
    if "text_dim" in flags:
        return Sentence
    if "n_categories" in flags:
        return Codes
    if "latent_dim" in flags:
        # The classes of improved_gan.py are those of its D.
        draws_classes = "n_classes" in flags and "n_labels" not in flags
        return Number if draws_classes else Walk
    if "selected_attrs" in flags:
        return AttributeEditor
    if "style_dim" in flags:
        return MapPainter
    if "feature_dim" in flags:
        return ObjectPainter
    if "hole" in flags and flags.get("task", "inpaint") == "inpaint":  # not another task
        return HoleFiller
    if "scale" in flags:
        return Enlarger
    if "input" in flags:
        return Translator
    raise UserError(f"there is no page for runs of {args.script}.py")


def model_of(run):
    """The model of a `TrainedRun`, which has drawn once: its kernels are compiled.

    Raises:
        UserError: there is no page for such a run.
    """
    model = kind_of(run.args)(run)
    model.warm_up()
    return model
