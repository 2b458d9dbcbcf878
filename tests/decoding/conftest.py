import pytest
import torch
from decoding_models import MIXERS, model_of
from torch import nn

torch.set_num_threads(1)


@pytest.fixture(params=MIXERS, scope="session")
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Each of the models, which know their specs."""
    return model_of(request.param)


@pytest.fixture(scope="session")
def attention() -> nn.Module:
    """The model of attention alone."""
    return model_of("attention")


@pytest.fixture(scope="session")
def hybrid() -> nn.Module:
    """The model of all."""
    return model_of("hybrid")
