"""The schema: whatever stands in a study file, it is a study or an error that says where in the file."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import studies
from benchmarks.report.display.quantities import QUANTITIES
from benchmarks.studies import schema
from benchmarks.studies.study import Study, StudyError

ROOT = Path(__file__).parent.parent.parent
STUDY = {
    "title": "A study",
    "description": "What for.",
    "seeds": [0, 1],
    "reference": "sgd",
    "target": 90.0,
    "figures": ["error", "map"],
    "threads": 1,
    "run": {"workload": "digits-mlp", "epochs": 3, "milestones": [2], "hyper": {"lr": 0.1}, "preset": "default"},
    "runs": [
        {"optimizer": "sgd", "hyper": {"momentum": 0.5, "nesterov": True}, "gamma": 0.5, "clip_norm": 1.0},
        {
            "optimizer": ["padam", "adam"],
            "label": "two",
            "title": "Two",
            "batch_size": [16, 32],
            "hyper": {"betas": [[0.9, 0.99], [0.8, 0.9]], "eps": 1e-8},
            "workload_options": {"hidden": 16},
            "precision": "fp32",
            "label_smoothing": 0.1,
            "ema": 0.9,
            "groups": [{"match": "biases", "weight_decay": 0.0}],
            "schedules": {"lr": [{"kind": "wsd", "decay": 0.5}, {"kind": "steps", "at": [2, 4]}]},
        },
    ],
    "also": [{"optimizer": "adamw", "milestones": [], "schedules": {"lr": {"kind": "cosine", "warmup": 0.1}}}],
}
TUNED = {**STUDY, "tuning": {"trials": 2, "seed": 1, "seeds": 2, "apart": True}, "also": [], "reference": "two"}
TUNED["runs"] = [{**STUDY["runs"][1], "hyper": {"lr": {"low": 0.1, "high": 1.0}, "eps": {"choices": [1e-8, 1e-4]}}}]


def check(data):
    """The message of the error that a file with these keys gives."""
    with pytest.raises(StudyError) as error:
        studies.parse({**STUDY, **data}, "mine")
    return str(error.value).removeprefix("study mine.toml: ")


def run(**keys):
    """A study whose first run has these keys."""
    return {"runs": [{"optimizer": "sgd", **keys}]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"titel": "x"}, "titel: unknown key; did you mean 'title'?"),
        ({"title": 3}, "title: must be a text of at least one character, got 3"),
        ({"title": ""}, "title: must be a text of at least one character, got ''"),
        ({"description": ["x"]}, "description: must be a text, got ['x']"),
        ({"threads": 0}, "threads: must be a whole number of at least 1, got 0"),
        ({"threads": 1.0}, "threads: must be a whole number of at least 1, got 1.0"),
        (
            {"seeds": 0},
            "seeds: must be a count from 1 to 10,000 or a list of different whole numbers of at least 0, got",
        ),
        ({"seeds": 10**12}, "seeds: must be a count from 1 to 10,000"),
        ({"seeds": [1, 1]}, "seeds: must be a count or a list of different whole numbers, got [1, 1]"),
        ({"seeds": [-1]}, "seeds[0]: must be a whole number of at least 0, got -1"),
        ({"seeds": []}, "seeds: is empty; give at least one value"),
        ({"target": math.nan}, "target: must be a number, got nan"),
        ({"target": "high"}, "target: must be a number, got 'high'"),
        (
            {"figures": ["eror"]},
            "figures[0]: must be one of distance, effective_step, error, error_ema, error_recalibrated",
        ),
        ({"runs": ["sgd"]}, "[[runs]][0]: must be a table, got 'sgd'"),
        ({"runs": {"optimizer": "sgd"}}, "[[runs]]: must be a list whose items are a table, got {"),
        ({"also": 3}, "[[also]]: must be a list whose items are a table, got 3"),
        ({"run": {"hyper": "lr"}}, "[run].hyper: must be a table, got 'lr'"),
        ({"run": "fast"}, "[run]: must be a table, got 'fast'"),
        ({"run": {"label": "x"}}, "[run].label: unknown key"),
        ({"tuning": {"trials": 0}}, "[tuning].trials: must be a whole number of at least 1, got 0"),
        ({"tuning": {}}, "[tuning].trials: is missing"),
        ({"tuning": {"trials": 1, "sed": 3}}, "[tuning].sed: unknown key; did you mean 'seed'?"),
        ({"tuning": {"trials": 1, "apart": 1}}, "[tuning].apart: must be true or false, got 1"),
        (run(epohcs=3), "[[runs]][0].epohcs: unknown key; did you mean 'epochs'?"),
        (run(**{"a b": 3}), '[[runs]][0]."a b": unknown key;'),
        (
            run(epochs="3"),
            "[[runs]][0].epochs: must be a whole number of at least 1 or a list of such (a grid), got",
        ),
        (run(epochs=True), "[[runs]][0].epochs: must be a whole number of at least 1 or a list of such"),
        (run(epochs=0), "[[runs]][0].epochs: must be a whole number of at least 1"),
        (run(epochs=[3, 0]), "[[runs]][0].epochs[1]: must be a whole number of at least 1, got 0"),
        (run(epochs=[]), "[[runs]][0].epochs: is empty; give at least one value"),
        (run(epochs=10**30), "[[runs]][0].epochs: must be a whole number of at most 64 bits"),
        (run(optimizer=["sgd", 3]), "[[runs]][0].optimizer[1]: must be a text of at least one character, got 3"),
        (run(gamma=2.0), "[[runs]][0].gamma: must be a number in (0, 1] or a list of such (a grid), got 2.0"),
        (
            run(precision="fp8"),
            "[[runs]][0].precision: must be one of bf16, fp16, fp32 or a list of such (a grid)",
        ),
        (run(milestones=[9, 3]), "[[runs]][0].milestones: must be epochs in ascending order"),
        (run(milestones=[[3], 9]), "[[runs]][0].milestones: must be epochs in ascending order"),
        (run(milestones=[0]), "[[runs]][0].milestones[0]: must be a whole number of at least 1"),
        (run(recalibrate=-1), "[[runs]][0].recalibrate: must be a whole number of at least 0"),
        (run(clip_norm=-1), "[[runs]][0].clip_norm: must be a number of at least 0"),
        (run(label_smoothing=1), "[[runs]][0].label_smoothing: must be a number in [0, 1)"),
        (run(ema=math.inf), "[[runs]][0].ema: must be a number in [0, 1)"),
        (run(model="nets"), "[[runs]][0].model: 'nets' is not of the form 'module:object'"),
        (run(data=3), "[[runs]][0].data: must be 'module:object' or a list of such (a grid), got 3"),
        (run(hyper={"lr": math.nan}), "[[runs]][0].hyper.lr: must be a number of at least 0, got nan"),
        (run(hyper={"lr": [0.1, math.inf]}), "[[runs]][0].hyper.lr[1]: must be a number of at least 0, got inf"),
        (run(hyper={"lr": -0.1}), "[[runs]][0].hyper.lr: must be a number of at least 0, got -0.1"),
        (run(hyper={"lr": "big"}), "[[runs]][0].hyper.lr: must be a number of at least 0, got 'big'"),
        (run(hyper={"lr": []}), "[[runs]][0].hyper.lr: is an empty grid; give at least one value"),
        (run(hyper={"momentum": math.nan}), "[[runs]][0].hyper.momentum: must be a finite number, got nan"),
        (run(hyper={"betas": [0.9, math.nan]}), "[[runs]][0].hyper.betas[1]: must be a finite number, got nan"),
        (run(workload_options=3), "[[runs]][0].workload_options: must be a table or a list of such (a grid), got 3"),
        (run(schedules={"lr": "cosine"}), "[[runs]][0].schedules.lr: must be a table such as { kind = 'cosine' }"),
        (run(schedules={"lr": []}), "[[runs]][0].schedules.lr: is an empty grid"),
        (run(schedules={"lr": [{}]}), "[[runs]][0].schedules.lr[0].kind: must be the name of a schedule"),
        (run(groups=[3]), "[[runs]][0].groups[0]: must be a table"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data, message):
    """The path in the file, the value, and what is allowed; of an unknown key the nearest known one."""
    assert check(data).startswith(message)


def test_depth_is_bounded():
    """What is nested without end is no setting, and must not end in a RecursionError."""
    deep = "x"
    for _ in range(500):
        deep = [deep]
    assert "is nested too deep" in check(run(hyper={"lr": deep}))


def places(value, path=()):
    """The paths of all that is in a study."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(data, path, value):
    """The study with another value at a path; `...` removes what is there."""
    if not path:
        return value if isinstance(value, dict) else data
    data = copy.deepcopy(data)
    table = data
    for key in path[:-1]:
        table = table[key]
    if value is ...:
        del table[path[-1]]
    else:
        table[path[-1]] = value
    return data


LEAVES = st.one_of(
    st.sampled_from([0, -1, 1, 2**63, 10**25, 0.0, -0.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, True, False]),
    st.sampled_from(["", "sgd", "padam", "digits-mlp", "cosine", "a:b", "a.b:c", ":", "math:pi", "\x00", "部"]),
    st.sampled_from(["momentum", "nesterov", "validation", "two", "fp16", "quick", "mine", "../mine", "a" * 300]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["lr", "betas", "kind", "low", "high", "choices"]), st.text(max_size=3)),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_mutation_is_a_study_or_a_placed_error(data):
    """Wrong types, values that are none, empty lists, depth, unknown keys: never another kind of exception."""
    study = data.draw(st.sampled_from([STUDY, TUNED]))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(study))))
        if data.draw(st.booleans()) and path:
            study = changed(study, path, data.draw(st.one_of(VALUES, st.just(...))))
        else:  # a key of the same table, or one that nobody knows
            keys = [*schema.Entry.__struct_fields__, *schema.StudyFile.__struct_fields__, "lr", "eps", "weight_decay"]
            key = data.draw(st.one_of(st.sampled_from(keys), st.text(max_size=4)))
            parent = path
            while parent and not isinstance(_at(study, parent), dict):
                parent = parent[:-1]
            study = changed(study, (*parent, key), data.draw(VALUES))
    try:
        loaded = studies.parse(study, "mine")
    except StudyError as error:
        message = str(error)
        assert message.startswith("study "), message
        assert message.split(" ")[1].endswith(".toml:"), message
        assert "\n" not in message
        assert len(message.split(": ")) >= 3, message  # the file, the place, the problem
    else:
        assert isinstance(loaded, Study)
        assert loaded.runs()
        json.dumps([one.config.to_dict() for one in loaded.runs()], allow_nan=False)


def _at(value, path):
    for key in path:
        value = value[key]
    return value


def test_the_json_schema_is_up_to_date():
    """Editors complete and check by the file in the repository: `python -m benchmarks schema > …` writes it."""
    assert schema.FILE.read_text(encoding="utf-8") == schema.json_schema()


def test_the_figures_are_those_of_the_report():
    """The schema names them without importing what draws them."""
    assert {*get_args(schema.Figure)} == {*QUANTITIES}


def test_the_json_schema_takes_our_studies():
    """By an independent implementation of JSON Schema, where one is installed; and it refuses what is wrong."""
    jsonschema = pytest.importorskip("jsonschema")
    import tomllib

    validator = jsonschema.Draft202012Validator(json.loads(schema.FILE.read_text(encoding="utf-8")))
    for name in studies.names():
        validator.validate(tomllib.loads((schema.FILE.parent / f"{name}.toml").read_text(encoding="utf-8")))
    for wrong in ({**STUDY, "titel": "x"}, {**STUDY, "runs": ["sgd"]}, {**STUDY, "threads": 0}):
        assert not validator.is_valid(wrong)


def test_studies_are_read_without_torch():
    """Their names and titles, the schema and the errors: nothing that takes a second to import."""
    code = (
        "import sys; from benchmarks import studies; from benchmarks.studies import schema, study; studies.titles(); "
        "study.seeds(3); schema.json_schema(); schema.check({'title': 'x'}, 'x.toml'); "
        "print(*{'torch', 'numpy', 'scipy', 'pandas', 'altair', 'matplotlib', 'jinja2'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
