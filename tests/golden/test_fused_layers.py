"""Hand-written derivatives against finite differences in float64, and layers against their equations."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.autograd import gradcheck
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from adjudge.models.engine.fused import fuse

INPUTS, INNER = 6, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adapted(layers: dict[str, nn.Module], targets: list[str]) -> nn.Module:
    """Return these layers fused in one float64 module, with random LoRA (rank 2, scale 1.5) on targets."""
    model = inject_adapter_in_model(
        LoraConfig(r=2, lora_alpha=3, target_modules=targets), nn.ModuleDict(layers)
    ).double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data.copy_(0.7 * draw(*parameter.shape, seed=seed + 10))
    fuse(model)
    return model


def linear(bias: bool) -> nn.Module:
    return adapted({"proj": nn.Linear(INPUTS, 4, bias=bias)}, ["proj"])["proj"]


def mlp() -> nn.Module:
    config = LlamaConfig(hidden_size=INPUTS, intermediate_size=INNER, num_attention_heads=2, hidden_act="silu")
    return adapted({"mlp": LlamaMLP(config)}, ["gate_proj", "up_proj", "down_proj"])["mlp"]


def norm() -> nn.Module:
    layer = LlamaRMSNorm(INPUTS, eps=0.3).double()
    layer.weight.data.copy_(draw(INPUTS))
    fuse(layer)
    return layer


def lora(layer: nn.Module, x: Tensor) -> Tensor:
    """Arxiv 2106.09685, section 4.1: W x + b + (alpha / r) B A x."""
    up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    y = torch.einsum("oi,...i->...o", layer.base_layer.weight + 1.5 * up @ down, x)
    return y if layer.base_layer.bias is None else y + layer.base_layer.bias


LAYERS = {
    "linear": (lambda: linear(False), "_LoraLinear", lora),
    "linear with bias": (lambda: linear(True), "_LoraLinear", lora),
    "gated mlp": (  # 2002.05202, equation 6, with x · sigmoid(x) for Swish
        mlp,
        "_GatedMlp",
        lambda m, x: lora(m.down_proj, lora(m.gate_proj, x) * torch.sigmoid(lora(m.gate_proj, x)) * lora(m.up_proj, x)),
    ),
    "rms norm": (
        norm,
        "_RmsNorm",
        lambda m, x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 0.3) * m.weight,
    ),  # 1910.07467, equation 4
}
LAYER = pytest.mark.parametrize(("make", "function", "equation"), LAYERS.values(), ids=LAYERS)


@LAYER
@pytest.mark.parametrize("shape", [(3, INPUTS), (2, 3, INPUTS), (INPUTS,), (0, 3, INPUTS)], ids=str)
def test_layer_equals_its_equation(make, function, equation, shape) -> None:
    layer, x = make(), draw(*shape)
    y = layer(x)
    assert type(y.grad_fn).__name__ == function + "Backward"  # not the libraries' own
    torch.testing.assert_close(y, equation(layer, x), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(layer(x), y)


@LAYER
def test_gradients_equal_finite_differences(make, function, equation) -> None:
    layer = make()
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    x = draw(2, 3, INPUTS).requires_grad_()
    assert gradcheck(
        lambda x, *parameters: layer(x), (x, *trained), atol=1e-7, rtol=1e-6
    )  # perturbs the parameters in place
    skewed = draw(INPUTS, 3).requires_grad_()  # neither the input nor the incoming gradient is contiguous
    assert gradcheck(lambda x, *parameters: layer(x.t()).t().contiguous(), (skewed, *trained), atol=1e-7, rtol=1e-6)


@LAYER
def test_adapters_get_gradients_if_the_input_needs_none(make, function, equation) -> None:
    fused, expected = make(), make()
    (fused(draw(3, INPUTS)) * draw(3, 1, seed=7)).sum().backward()
    (equation(expected, draw(3, INPUTS)) * draw(3, 1, seed=7)).sum().backward()
    trained = {key: parameter.grad for key, parameter in fused.named_parameters() if parameter.requires_grad}
    assert trained
    for key, parameter in expected.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(trained[key], parameter.grad, rtol=1e-12, atol=1e-12)


@LAYER
def test_inputs_and_incoming_gradients_are_not_written_to(make, function, equation) -> None:
    layer, x = make(), draw(3, INPUTS).requires_grad_()
    y = layer(x)
    gradient = draw(*y.shape, seed=5)
    first = torch.autograd.grad(y, x, gradient, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(y, x, gradient)[0], first)  # nor are the kept tensors
    assert torch.equal(x.detach(), draw(3, INPUTS))
    assert torch.equal(gradient, draw(*y.shape, seed=5))


@LAYER
def test_second_derivative_is_refused(make, function, equation) -> None:
    layer, x = make(), draw(3, INPUTS).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
