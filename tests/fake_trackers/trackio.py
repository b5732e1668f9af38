"""The calls of trackio that we use, with the signatures of trackio 0.43. It finds the run to resume by its name."""

import book


class Run:
    def __init__(self, name, resume, told):
        runs = book.read("trackio")
        same = [id for id, tracked in runs.items() if tracked["name"] == name]
        self.id = same[-1] if same and resume == "allow" else f"{len(runs):032x}"
        self.name = name
        runs.setdefault(self.id, {"steps": []}).update(told, name=name)
        book.write("trackio", runs)
        steps = runs[self.id]["steps"]
        self._next_step = steps[-1][0] + 1 if steps else 0

    def change(self, **values):
        runs = book.read("trackio")
        runs[self.id].update(values)
        book.write("trackio", runs)

    def log(self, metrics, step=None):
        if any(name.startswith("eval/") for name in metrics):
            self.change(scores=metrics)
        else:
            self.change(steps=[*book.read("trackio")[self.id]["steps"], [step, metrics]])

    def log_artifact(self, artifact_or_path, name=None, type=None, aliases=None, overwrite=False):
        self.change(files=[artifact_or_path.read_text()])

    def finish(self):
        self.change(state="complete" if "scores" in book.read("trackio")[self.id] else "stopped")


def init(project, name=None, group=None, space_id=None, config=None, resume="never", settings=None, embed=True):
    assert not any(key.startswith("_") for key in config)
    return Run(name, resume, {"project": project, "group": group, "settings": config})
