"""Two commits of one repository, side by side: each in a git worktree of its own, gone again afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.records.case import BadInput
from harness.records.machine import git


@dataclass(frozen=True)
class Repository:
    """A git repository and the folder in it that the command was given in."""

    root: Path
    inside: Path

    @classmethod
    def at(cls, folder: str | Path) -> "Repository":
        """The repository that holds a folder; BadInput where there is none."""
        here = Path(folder).resolve()
        if not here.is_dir():
            raise BadInput(f"gate.speed.repository={str(folder)!r} is no folder: give one inside a git repository")
        root = git(here, "rev-parse", "--show-toplevel")
        if root is None:
            raise BadInput(
                f"{str(folder)!r} lies in no git repository, so there is no base to compare with: give "
                "gate.speed.repository=FOLDER, or gate.speed.base=null to compare with the baseline file"
            )
        return cls(Path(root), here.relative_to(Path(root).resolve()))

    def commit(self, name: str, setting: str) -> str:
        """The full hash of a commit; BadInput for a name that this clone does not know."""
        found = git(self.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if found is None:
            raise BadInput(
                f"{setting}={name} is no commit of this clone: give a branch, tag or hash that `git rev-parse` knows, "
                "and fetch it first (a CI's clone is often shallow: fetch-depth 0)"
            )
        return found

    def changes(self) -> list[str]:
        """Paths of tracked files that differ from HEAD."""
        told = git(self.root, "status", "--porcelain", "--untracked-files=no") or ""
        return [line.split(maxsplit=1)[-1] for line in told.splitlines()]

    @contextmanager
    def checkouts(self, *commits: str) -> Iterator[list[Path]]:
        """A folder for each commit; BadInput where git cannot make one."""
        with TemporaryDirectory(prefix="gate-") as aside:
            folders = [Path(aside).resolve() / f"{turn}-{commit[:12]}" for turn, commit in enumerate(commits)]
            try:
                for folder, commit in zip(folders, commits, strict=True):
                    if git(self.root, "worktree", "add", "--detach", str(folder), commit) is None:
                        remedy = f"see `git worktree add --detach FOLDER {commit}`"
                        raise BadInput(f"git could not check out {commit[:12]}: {remedy}")
                yield folders
            finally:
                for folder in folders:
                    git(self.root, "worktree", "remove", "--force", str(folder))
                git(self.root, "worktree", "prune")
