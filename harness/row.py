"""A variant on a model: what fills its sites there, and the student that stands for it."""

import json
from dataclasses import dataclass
from functools import cached_property, partial

from harness.distillation.recipe import Recipe
from harness.distillation.student import Student, ingredients
from harness.features.world import World, taught_on
from harness.locality.profile import settled
from harness.models.model import Model
from harness.models.weights import at_hand
from harness.records.case import BadInput
from harness.records.spelled import digest, spelled
from harness.seats import checkpoint
from harness.seats.factory import is_training_free, one_mixer, preset
from harness.seats.mixer import TokenMixer, Unavailable
from harness.seats.surgery import seated, seating_of


@dataclass(frozen=True)
class Row:
    """A variant on a model, worked out once for all its cases.

    chosen: the catalogue's factory. taught: the recipe's name where several are compared, such as `paper-6`.
    """

    model: Model
    variant: str
    chosen: partial[TokenMixer]
    recipe: Recipe | None
    world: World
    taught: str = ""

    @property
    def name(self) -> str:
        """What the row is called: `deltaconv`, or `deltaconv-paper` where recipes are compared."""
        return f"{self.variant}-{self.taught}" if self.taught else self.variant

    @property
    def learns(self) -> bool:
        """Whether a recipe makes its weights."""
        published = self._laid.keywords.get("published")
        return published is None and not self.exact and not is_training_free(self.factory)

    @cached_property
    def exact(self) -> bool:
        """Whether every site keeps its teacher's own attention, as in a hybrid that replaces none."""
        if (mixer := one_mixer(self.factory)) is not None:
            return mixer.exact
        try:
            denoiser = self.model.on_meta().denoiser
            if seating := seating_of(denoiser):
                seating.undo()
            with seated(denoiser, self.factory) as seats:
                return all(seat.mixer.exact for seat in seats.values())
        except (TypeError, ValueError, Unavailable):
            return False  # `harness.check` says what is wrong

    @cached_property
    def _laid(self) -> partial[TokenMixer]:
        """The catalogue's factory with the model's presets laid over its settings."""
        laid = preset(self.chosen, self.model.presets_of(self.variant)[1])
        return partial(laid.func, *laid.args, **settled(laid.keywords, self.model.profile, self.model.name))

    @cached_property
    def factory(self) -> partial[TokenMixer]:
        """What makes the mixers: `published` says where their weights are, and is no setting of a mixer."""
        settings = {name: value for name, value in self._laid.keywords.items() if name != "published"}
        return partial(self._laid.func, *self._laid.args, **settings)

    @cached_property
    def mixer(self) -> str:
        """The factory, spelled out."""
        return json.dumps(spelled(self.factory), sort_keys=True)

    @cached_property
    def config(self) -> str:
        """A digest of the model's class and configuration."""
        return digest(spelled(self.model))

    @cached_property
    def at_hand(self) -> bool:
        """Whether nothing has to be downloaded."""
        published = self._laid.keywords.get("published")
        return at_hand(self.model.source) and (published is None or checkpoint.local(published) is not None)

    @cached_property
    def student(self) -> Student:
        """The student that stands for the variant on this model, trained or not.

        A shipped one may stand in for that of the default recipe, but not where recipes are compared or train anew.
        """
        name, published = self.model.name, self._laid.keywords.get("published")
        if self.exact:
            if published is not None:
                raise BadInput(
                    f"{self.variant} is the teacher's own attention and takes no weights: leave out published="
                )
            return Student(name, self.variant, exact=True)
        if published is not None:
            made_of = ingredients(None, checkpoint.digest(published), self.factory, "published")
            return Student(name, self.variant, made_of, published=str(published))
        data = " ".join([taught_on(self.world), *map(str, self.model.buckets)])
        made_of = ingredients(self.recipe, self.model.fingerprint(), self.factory, data)
        own = Student(name, self.variant, made_of)
        return own if self.taught or self._trains_anew else own.stand_in()

    @property
    def _trains_anew(self) -> bool:
        """Whether this run is told to train the recipe's own student, though another could stand in for it."""
        return self.recipe is not None and self.recipe.force and self.recipe.on_demand
