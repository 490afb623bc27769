"""What a vendor does to a model beside its layout is told, whatever it is."""

import pytest
import torch
from chipperf.torchtools import convert_parameters
from chipperf.train.model_changes import changes_of_model, describe_model
from torch import nn
from torch.nn.modules import module as modules


def make_model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Linear(8, 4))


def preparations():
    """Yield what is told, and what changes a model so."""

    def in_fp32(values):
        return values.bfloat16().float()

    class Conv2d(nn.Conv2d):
        pass

    Conv2d.__qualname__ = "Conv2d"
    yield "parameter 0.weight", lambda model: model[0].weight.data.copy_(in_fp32(model[0].weight.data))
    yield "parameter 0.weight", lambda model: model[0].weight.data.mul_(-1)
    yield "parameter 4.bias", lambda model: setattr(model[4].bias, "data", model[4].bias.data.half())
    yield "parameter 1.weight", lambda model: model[1].half()
    yield "parameter 1.weight", lambda model: model[1].weight.requires_grad_(False)
    yield "buffer 1.running_var", lambda model: setattr(model[1], "running_var", model[1].running_var.bfloat16())
    yield "buffer 1.running_mean", lambda model: model[1].running_mean.add_(0.1)
    yield "buffer 1.running_mean", lambda model: setattr(model[1], "running_mean", None)
    yield "parameter 0.weight", lambda model: model[0].weight.register_hook(in_fp32)
    yield "parameter 4.weight", lambda model: model[4].weight.register_post_accumulate_grad_hook(lambda _: None)
    yield "module 0", lambda model: model[0].register_forward_pre_hook(lambda *_: None)
    yield "module 1", lambda model: model[1].register_forward_hook(lambda *_: None)
    yield "module 4", lambda model: model[4].register_full_backward_hook(lambda *_: None)
    yield "module 1", lambda model: model[1]._register_state_dict_hook(lambda *_: None)
    yield "module 4", lambda model: setattr(model[4], "forward", lambda x: in_fp32(nn.Linear.forward(model[4], x)))
    yield "module (root)", lambda model: setattr(model, "eval", lambda: nn.Sequential.eval(model.bfloat16()))
    yield "module 0", lambda model: setattr(model[0], "__class__", Conv2d)
    yield "module 2", lambda model: model.__setitem__(2, nn.Identity())
    yield "settings of module 1", lambda model: setattr(model[1], "momentum", 0.01)
    yield "settings of module 1", lambda model: setattr(model[1], "eps", 1e-3)
    yield "settings of module 2", lambda model: setattr(model[2], "p", 0.0)
    yield "settings of module 2", lambda model: model[2].eval()
    yield "parameter 4.again", lambda model: setattr(model[4], "again", model[4].weight)


@pytest.mark.parametrize(("told", "change"), list(preparations()))
@pytest.mark.parametrize("parameter_type", [None, "float16"])
def test_a_change_is_told(told, change, parameter_type):
    model = make_model()
    before = describe_model(model, parameter_type)
    change(model)
    changes = changes_of_model(before, describe_model(model))
    if parameter_type and told == "parameter 4.bias":
        assert not changes
    else:
        assert told in changes


def test_a_hook_of_all_modules_is_told():
    model = make_model()
    before = describe_model(model)
    handle = modules.register_module_forward_hook(lambda *_: None)
    try:
        assert "hooks of all modules was 0 and is 1" in changes_of_model(before, describe_model(model))
    finally:
        handle.remove()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_layouts_and_the_types_of_the_precision_are_no_change(precision):
    model = make_model()
    before = describe_model(model, "float16" if precision == "fp16" else None)
    convert_parameters(model.to(memory_format=torch.channels_last), precision)
    assert changes_of_model(before, describe_model(model)) == ""


def test_training_changes_values_alone():
    model = make_model()
    before = describe_model(model, values=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 8, 3, 3)).sum().backward()
    optimizer.step()
    assert changes_of_model(before, describe_model(model, values=False)) == ""
    model[1].half()
    assert "parameter 1.bias" in changes_of_model(before, describe_model(model, values=False))


def test_of_many_changes_five_are_told():
    model = make_model()
    changes = changes_of_model(describe_model(model), describe_model(nn.Sequential()))
    assert changes.count(";") == 4
    assert changes.endswith("more")
