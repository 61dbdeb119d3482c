"""What `train=NAME` can name beside a recipe for students: a part of a world that is trained by itself."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Trainable(Protocol):
    """Anything in conf/train that is trained by itself, from its recipe, into a folder."""

    def train(self) -> None: ...
