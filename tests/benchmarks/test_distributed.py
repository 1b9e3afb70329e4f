"""One run over two processes under torchrun, on a small folder of images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import hashlib, json, pathlib, sys, torch
from benchmarks import distributed, engine
from benchmarks.config import RunConfig

torch.set_num_threads(1)
folder = pathlib.Path(sys.argv[1])
config = RunConfig("imagenet-resnet18", "padam", {"lr": 0.1}, epochs=2, batch_size=8, recalibrate=2,
                   workload_options={"size": 32})
engine.AGREE_EVERY = 2
runs, written = [], []
start, replacing = engine._Run.__init__, engine.replacing
engine._Run.__init__ = lambda run, *args: (start(run, *args), runs.append(run))[0]
engine.replacing = lambda path: (written.append(path.name), replacing(path))[1]

def train(name, stop=False):
    # Only the first process is asked to stop, in the middle of the second epoch.
    def should_stop():
        return stop and distributed.rank() == 0 and (len(runs[-1].records), runs[-1].position) == (1, 2)
    return engine.train(config, data_dir=folder, device=device, checkpoint=folder / name, should_stop=should_stop)

with distributed.session(torch.device("cpu")) as device:
    whole, stopped, resumed = train("a.pt"), train("b.pt", stop=True), train("b.pt")
    digests = [hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in run.model.parameters())).hexdigest()
               for run in runs]
    timeless = [[{k: v for k, v in r.items() if k != "time"} for r in records] for records in (whole, resumed)]
    result = {"world": distributed.world(), "stopped": stopped, "digests": digests, "records": timeless,
              "written": written}
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(result))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with an ImageNet of two classes, 24 images to train on and 7 to be judged on."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 7)):
        for i in range(count):
            name = tmp_path / "imagenet" / part / ("dark" if i % 2 else "light") / f"{i}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 128, (40, 48, 3), dtype=np.uint8) + 127 * (i % 2 == 0)).convert("RGB").save(
                name
            )
    return tmp_path


def test_two_processes_train_one_model(folder: Path) -> None:
    """Both processes end with the same weights and records, also after a stop, and the first alone writes."""
    root, script = Path(__file__).parents[2], folder / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run([*torchrun, script, folder], cwd=root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["world"] == 2
    assert first["stopped"] is None
    assert first["records"] == second["records"]
    assert first["digests"] == second["digests"]
    whole, stopped, resumed = first["digests"]
    assert whole == resumed != stopped
    assert first["records"][0] == first["records"][1]
    assert [r["step"] for r in first["records"][0]] == [3, 6]
    assert (first["written"], second["written"]) == (["b.pt"], [])
