"""What every test starts from: one thread, a fixed seed, Hypothesis without deadlines."""

import hypothesis
import pytest
import torch

pytest_plugins = ["records"]

torch.set_num_threads(1)
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
