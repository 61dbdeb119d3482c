"""A lesson: one part of a world that is trained by command (`python -m harness train=tiny_sd`), instead of a sweep."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Lesson(Protocol):
    """Anything in conf/train that is learned by itself, from its recipe, into a folder."""

    def learn(self) -> None: ...
