from pathlib import Path
from types import SimpleNamespace

import book

from mlflow.entities import Metric


class MlflowClient:
    def __init__(self, tracking_uri=None, registry_uri=None):
        pass

    def change(self, run_id, **values):
        runs = book.read("mlflow")
        runs.setdefault(run_id, {"steps": [], "scores": {}, "settings": {}, "files": []}).update(values)
        book.write("mlflow", runs)

    def get_experiment_by_name(self, name):
        names = [tracked["project"] for tracked in book.read("mlflow").values()]
        return SimpleNamespace(experiment_id=name) if name in names else None

    def create_experiment(self, name, artifact_location=None, tags=None):
        assert self.get_experiment_by_name(name) is None
        return name

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        run_id = f"run-{len(book.read('mlflow'))}"
        self.change(run_id, project=experiment_id, name=run_name, group=tags["group"])
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id, status=None, name=None):
        assert run_id in book.read("mlflow")

    def get_run(self, run_id):
        tracked = book.read("mlflow")[run_id]
        names = {name for _, figures in tracked["steps"] for name in figures}
        return SimpleNamespace(data=SimpleNamespace(metrics=dict.fromkeys([*names, *tracked["scores"]], 0.0)))

    def get_metric_history(self, run_id, key):
        steps = book.read("mlflow")[run_id]["steps"]
        return [Metric(key, figures[key], 0, step) for step, figures in steps if key in figures]

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        assert len(params) <= 100
        tracked = book.read("mlflow")[run_id]
        figures = {metric.key: metric.value for metric in metrics}
        if any(name.startswith("eval/") for name in figures):
            tracked["scores"] = figures
        elif figures:
            tracked["steps"].append([metrics[0].step, figures])
        tracked["settings"].update({param.key: param.value for param in params})
        self.change(run_id, **tracked)

    def log_artifact(self, run_id, local_path, artifact_path=None):
        self.change(run_id, files=[Path(local_path).read_text()])

    def set_terminated(self, run_id, status=None, end_time=None):
        self.change(run_id, state="complete" if status == "FINISHED" else "stopped")
