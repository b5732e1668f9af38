"""The calls of Weights & Biases that we use, with the signatures of wandb 0.31.

Like its server, it ignores a step that is not newer than the last.
"""

from pathlib import Path

import book


class Settings:
    def __init__(self, *, console="auto"):
        assert console in ("auto", "off")


class Artifact:
    def __init__(self, name, type, description=None, metadata=None):
        assert all(letter.isalnum() or letter in "-._" for letter in name)
        self.name, self.type, self.files = name, type, []

    def add_file(self, local_path, name=None):
        self.files.append(Path(local_path).read_text())


class Summary:
    def __init__(self, run):
        self._run = run

    def update(self, d):
        self._run.change(scores=d)


class Run:
    def __init__(self, id, told):
        runs = book.read("wandb")
        self.id, self.resumed = id, id in runs
        runs.setdefault(id, {"steps": []})
        book.write("wandb", runs)
        self.change(**told)
        self.summary, self.url, self.dir = Summary(self), "https://example.org/run", "."

    def change(self, **values):
        runs = book.read("wandb")
        runs[self.id].update(values)
        book.write("wandb", runs)

    def steps(self):
        return book.read("wandb")[self.id]["steps"]

    @property
    def step(self):
        return self.steps()[-1][0] + 1 if self.steps() else 0

    def log(self, data, step=None, commit=None):
        book.trouble("log")
        if step >= self.step:
            self.change(steps=[*self.steps(), [step, data]])

    def log_artifact(self, artifact_or_path, name=None, type=None, aliases=None):
        self.change(files=artifact_or_path.files)

    def finish(self, exit_code=None):
        book.trouble("finish")
        self.change(state="complete" if exit_code == 0 else "stopped")


def init(entity=None, project=None, dir=None, id=None, name=None, group=None, config=None, resume=None, settings=None):
    book.trouble("init")
    assert resume == "allow"
    return Run(id, {"project": project, "name": name, "group": group, "settings": config})
