"""Attributes to translate to: those that --set asks for, each one changed, and those that a classifier sees."""

from common.data.batches import spread  # noqa: F401  # for those who still import it here
from common.errors import UserError

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Attributes:
    """What the columns of attributes (N, A), float32 in {0, 1}, mean.

    Args:
        names: of the A columns.
        exclusive: names of those that exclude each other, such as colours of hair.
        may_have_none: whether an image may have none of these, as a bald head has no colour of hair; otherwise it has
            exactly one.
    """

    names: list
    exclusive: list
    may_have_none: bool = False

    @property
    def columns(self):
        """The exclusive ones' indices."""
        return [self.names.index(name) for name in self.exclusive]

    def parse_changes(self, text):
        """The text "blue=1,bold=0" as {"blue": 1, "bold": 0}.

        Raises:
            UserError: an unknown name or value, two exclusive attributes at once, or none where an image has one.
        """
        changes = {}
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            if name not in self.names or value not in ("0", "1"):
                raise UserError(f"--set takes {'=0|1,'.join(self.names)}=0|1; got {part.strip()!r}")
            changes[name] = int(value)
        values = [changes[name] for name in self.exclusive if name in changes]
        if sum(values) > 1:
            raise UserError(f"--set {text}: an image has only one of {', '.join(self.exclusive)}")
        if values and sum(values) == 0 and not self.may_have_none:
            raise UserError(
                f"--set {text}: an image has exactly one of {', '.join(self.exclusive)}; set that one to 1"
            )
        return changes

    def change(self, attributes, changes):
        """Attributes with some set to 0 or 1, as `changes` {name: 0 or 1} say; an exclusive one clears the others."""
        result = attributes.copy()
        for name, value in changes.items():
            if value and name in self.exclusive:
                result[:, self.columns] = 0
            result[:, self.names.index(name)] = value
        return result

    def all_targets(self, attributes):
        """For each name, attributes with it changed: exclusive ones are set, the others flipped."""
        targets = []
        for k, name in enumerate(self.names):
            flipped = attributes.copy()
            flipped[:, k] = 1 - flipped[:, k]
            targets.append(
                self.change(attributes, {name: 1}) if name in self.exclusive else flipped
            )
        return targets

    def from_logits(self, logits):
        """The attributes that (N, A) logits tell: those above 0, and of exclusive ones the likeliest alone.

        Where an image may have none of these, the likeliest must be above 0 too.
        """
        attributes = (logits > 0).astype(np.float32)
        if self.exclusive:
            likeliest = np.eye(len(self.exclusive), dtype=np.float32)[
                logits[:, self.columns].argmax(1)
            ]
            attributes[:, self.columns] = (
                likeliest * attributes[:, self.columns] if self.may_have_none else likeliest
            )
        return attributes


def remember_attributes(args, data):
    """Makes what was found in the data arguments of the run, for its checkpoint.

    These are `selected_attrs`, `exclusive` and `may_have_none`, as in `Attributes`.

    Raises:
        UserError: --exclusive names one that is not selected.
    """
    exactly_one = data.exactly_one
    if args.exclusive is None:
        args.exclusive = data.exclusive
    else:
        unknown = [name for name in args.exclusive if name not in data.names]
        if unknown:
            raise UserError(f"--exclusive: {', '.join(unknown)} is none of {', '.join(data.names)}")
        columns = [data.names.index(name) for name in args.exclusive]
        exactly_one = bool((data.attributes[:, columns].sum(1) == 1).all())
    args.selected_attrs = data.names
    args.may_have_none |= bool(args.exclusive) and not exactly_one
    args.stored |= {
        name: getattr(args, name) for name in ("selected_attrs", "exclusive", "may_have_none")
    }
