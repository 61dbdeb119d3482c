"""Trainings in MLflow while they go on: each a run whose curves grow, with a picture now and then.

What is told is sent by a thread of its own, and the training does not wait for it: a slow server gets it late. One that
fails or hangs costs a sentence, and seconds when the training is over.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from torch import Tensor

from harness.distillation.student import Student
from harness.records.machine import describe
from harness.records.spelled import digest
from harness.records.store import to_stderr
from harness.tracking.address import page
from harness.tracking.entries import flat, name_of, source, taught
from harness.tracking.mirror import NOTE, PARENT_TAG, Mirror, brief_and_quiet, failures
from harness.tracking.server import Server, root

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Param

    Sent = Callable[[MlflowClient, str], object]

PATIENCE_S = 10.0
"""How long the end of a training waits for what was not sent yet."""
MOST_PARAMS = 100
"""That MLflow takes at once."""
ABOUT = (
    "Previews: a row for each of the world's first prompts, the teacher's image on the left, the student's beside it."
)


@dataclass(frozen=True)
class Trainings:
    """The trainings of one store's runs, on one server."""

    server: Server
    folder: Path

    @contextmanager
    def training(self, student: Student, told: Mapping[str, str]) -> "Iterator[Sender | None]":
        """A run, for as long as the context is open. MLflow is imported before the training begins."""
        with brief_and_quiet():
            known, sender, status = failures(), None, "FAILED"
            try:
                self.server.prepare()
                sender = Sender(self, student, told)
            except known as error:
                to_stderr(f"{self.server.name} failed ({root(error)}): the training is not shown there")
            try:
                yield sender
                status = "FINISHED"
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            finally:
                if sender is not None:
                    sender.close(status)


class Sender:
    """Sends what it is told of one training, in the order in which it was told."""

    def __init__(self, trainings: Trainings, student: Student, told: Mapping[str, str]) -> None:
        self._server, self._folder, self._student, self._told = trainings.server, trainings.folder, student, told
        self._waiting: SimpleQueue[Sent | None] = SimpleQueue()
        self._given_up = False
        self._thread = Thread(target=self._guarded, daemon=True, name="training in MLflow")
        self._thread.start()

    @property
    def listening(self) -> bool:
        """False once MLflow has failed."""
        return self._thread.is_alive()

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """A point of each curve."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 10**6
        points = [Metric(f"learning/{name_of(name)}", value, now_ms, step) for name, value in values.items()]
        self._waiting.put(lambda client, run: client.log_batch(run, points))

    def picture(self, step: int, picture_3HW: Tensor) -> None:
        """A picture that the run's page steps through."""
        pixels = picture_3HW.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        self._waiting.put(lambda client, run: client.log_image(run, pixels, key="preview", step=step))

    def close(self, status: str) -> None:
        """The training is over: its run ends, if that can be done in seconds."""
        card = self._student.cached.with_suffix(".md")
        if status == "FINISHED" and card.is_file():
            self._waiting.put(lambda client, run: client.log_artifact(run, str(card)))
        self._waiting.put(lambda client, run: client.set_terminated(run, status))
        self._waiting.put(None)
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self._given_up = True
            to_stderr(
                f"{self._server.name} did not take all of a training's curve within {PATIENCE_S:.0f} s of its end"
            )

    def _guarded(self) -> None:
        try:
            with self._server.mirror() as runs:
                self._send(runs)
        except Exception as error:  # noqa: BLE001, whatever it is, the training goes on
            if not self._given_up:
                to_stderr(f"{self._server.name} failed ({root(error)}): the training goes on and is not shown there")

    def _send(self, runs: Mirror) -> None:
        """Until the training is over, or nobody waits any more. The parent runs as long as one of its trainings."""
        client, parent = runs.client, runs.open("", self._folder, [])
        before = client.get_run(parent).info.status
        client.update_run(parent, "RUNNING")
        run = self._run(runs, parent)
        if address := page(self._server.uri, runs.experiment, run):
            to_stderr(f"its learning curve grows in MLflow: {address}")
        for send in iter(self._waiting.get, None):
            if self._given_up:
                return
            send(client, run)
        client.set_terminated(parent, "FINISHED" if before == "RUNNING" else before)

    def _run(self, runs: Mirror, parent: str) -> str:
        """The run of a training that was stopped or killed and now goes on from its checkpoint, or a new one.

        What was begun from another folder moves to this parent. Nobody else trains the student in this cache meanwhile:
        a run of it that is RUNNING was abandoned, and so was the parent that it is taken from.
        """
        client, student = runs.client, self._student
        cached = digest(str(student.cached.resolve()))
        query = f"tags.cached = '{cached}' and status != 'FINISHED'"
        for known in client.search_runs([runs.experiment], query, max_results=1):
            run, former = known.info.run_id, known.data.tags[PARENT_TAG]
            client.update_run(run, "RUNNING")
            client.set_tag(run, PARENT_TAG, parent)
            if former != parent and client.get_run(former).info.status == "RUNNING":
                client.set_terminated(former, "KILLED")
            return str(run)
        named = {PARENT_TAG: parent, "mlflow.runName": f"training {student.variant} of {student.model}", NOTE: ABOUT}
        named |= {"kind": "training", "student": student.key, "cached": cached} | source(describe())
        run = str(client.create_run(runs.experiment, tags=named).info.run_id)
        made_of = self._params()
        for start in range(0, len(made_of), MOST_PARAMS):
            client.log_batch(run, params=made_of[start : start + MOST_PARAMS])
        client.log_inputs(run, taught(self._told.get("world", ""), str(self._made_of.get("data"))))
        return run

    @property
    def _made_of(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self._student.ingredients or "{}")
        return found

    def _params(self) -> "list[Param]":
        """Flat and searchable, by the names that a case's run has them by."""
        from mlflow.entities import Param

        made_of = self._made_of
        found = {"model": self._student.model, "variant": self._student.variant, **self._told}
        found |= {"variant.mixer": str(made_of.get("mixer")), "weights": str(made_of.get("model"))}
        found |= flat(made_of.get("parameters"), "variant") | flat(made_of.get("recipe"), "recipe")
        return [Param(name_of(name), value) for name, value in found.items()]
