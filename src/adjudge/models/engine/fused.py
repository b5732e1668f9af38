"""The same layers with fewer passes over memory: LoRA products, gated MLPs and RMS norms that write their gradients by hand.

A LoRA layer as a library runs it keeps six tensors for its backward pass and adds a full-width intermediate; a gated MLP keeps its
activation three times over. Here each is one autograd function that keeps its inputs, recomputes what is cheap, and accumulates into the
matrix product's own output. Adapters stay float32 parameters (the optimizer's master weights) and are cast where they are used, so
that a bfloat16 network computes in bfloat16 throughout. Nothing else changes: same parameters, same mathematics.

`fuse` swaps the forward of the layers it knows on one model; every other layer is left as it is.

Shapes: ``N`` tokens (all leading dimensions), ``I`` inputs, ``O`` outputs, ``K`` rank.
Source: arXiv 2106.09685, section 4.1 (LoRA); 1910.07467, equation 4 (RMS norm); 2002.05202, equation 6 (gated MLP).
"""

from __future__ import annotations

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

GATED_MLPS = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")
RMS_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
"""Classes of transformers whose forward is exactly what is written here (Gemma's norm, for one, is not)."""

SILUS = ("SiLU", "SiLUActivation")
"""torch's class and that of transformers."""


class Low(NamedTuple):
    """The low-rank part of a layer: ``y += scale · (x downᵀ) upᵀ`` with down ``[K, I]`` and up ``[O, K]``."""

    down: Tensor
    up: Tensor
    scale: float


def fuse(model: nn.Module) -> None:
    """Swap the forward of every layer of `model` that is known here. Calling it again, after adapters were added, is fine."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    for module in model.modules():
        kind = type(module).__name__
        if kind in GATED_MLPS and type(getattr(module, "act_fn", None)).__name__ in SILUS:
            module.forward = MethodType(_mlp_forward, module)  # type: ignore[method-assign]
        elif kind in RMS_NORMS:
            module.forward = MethodType(_norm_forward, module)  # type: ignore[method-assign]
        elif type(module) is LoraLinear and type(module.base_layer) is nn.Linear:
            module.forward = MethodType(_lora_forward, module)  # type: ignore[method-assign]


def low_rank(layer: Any) -> Low | None:
    """The adapter that is switched on at `layer`; None when none is. Raises NotImplementedError when it is of a kind unknown here."""
    if not hasattr(layer, "lora_A"):
        return None
    if layer.disable_adapters or layer.merged:
        if layer.disable_adapters and layer.merged:
            raise NotImplementedError  # peft takes the adapter out of the weights again, in its own forward
        return None
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if not names:
        return None
    (name, *more) = names
    dropout = layer.lora_dropout[name]
    drops = layer.training and not isinstance(dropout, nn.Identity) and getattr(dropout, "p", 0) > 0
    trains_base = torch.is_grad_enabled() and any(
        parameter.requires_grad for parameter in layer.base_layer.parameters()
    )
    biased = layer.lora_A[name].bias is not None or layer.lora_B[name].bias is not None
    if more or drops or trains_base or biased or name in layer.lora_variant:
        raise NotImplementedError
    return Low(layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name]))


def _lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args or kwargs:  # an adapter named for each row, for one
        return type(self).forward(self, x, *args, **kwargs)
    try:
        low = low_rank(self)
    except NotImplementedError:
        return type(self).forward(self, x)
    base = self.base_layer
    if low is None:
        return nn.functional.linear(x, base.weight, base.bias)
    return _LoraLinear.apply(x, base.weight, base.bias, low.down, low.up, low.scale)


def _mlp_forward(self: Any, x: Tensor) -> Tensor:
    layers = (self.gate_proj, self.up_proj, self.down_proj)
    # Hooks run where a layer is called, which the function below does not do.
    if any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers):
        return type(self).forward(self, x)
    try:
        lows = [low_rank(layer) for layer in layers]
    except NotImplementedError:
        return type(self).forward(self, x)
    bases = [getattr(layer, "base_layer", layer) for layer in layers]
    known = [low for low in lows if low is not None]
    if len(known) < len(lows) or any(type(base) is not nn.Linear or base.bias is not None for base in bases):
        gate = nn.functional.silu(self.gate_proj(x), inplace=not torch.is_grad_enabled())
        return self.down_proj(gate * self.up_proj(x))
    weights = [base.weight for base in bases]
    return _GatedMlp.apply(x, *weights, *(matrix for low in known for matrix in low[:2]), *(low.scale for low in known))


def _norm_forward(self: Any, x: Tensor) -> Tensor:
    return _RmsNorm.apply(x, self.weight, self.variance_epsilon)


def _product(
    x_NI: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Output ``[N, O]`` of a LoRA layer and the inner ``[N, K]`` that its backward pass needs."""
    inner_NK = x_NI @ down.t()
    y_NO = nn.functional.linear(x_NI, weight, bias)
    return y_NO.addmm_(inner_NK, up.t(), alpha=scale), inner_NK


def _back(
    grad_NO: Tensor, weight: Tensor, down: Tensor, up: Tensor, scale: float, into: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradient at a LoRA layer's input ``[N, I]`` (added to `into` when given) and at its inner ``[N, K]``."""
    inner_NK = (grad_NO @ up).mul_(scale)
    grad_NI = grad_NO @ weight if into is None else into.addmm_(grad_NO, weight)
    return grad_NI.addmm_(inner_NK, down), inner_NK


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        down_c, up_c = down.to(x.dtype), up.to(x.dtype)
        y_NO, inner_NK = _product(x_NI, weight, bias, down_c, up_c, scale)
        ctx.save_for_backward(x_NI, inner_NK, weight, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return y_NO.view(*x.shape[:-1], y_NO.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x_NI, inner_NK, weight, down, up = ctx.saved_tensors
        grad_NO = grad.reshape(-1, grad.shape[-1])
        down_c, up_c = down.to(grad.dtype), up.to(grad.dtype)
        if ctx.needs_input_grad[0]:
            grad_NI, grad_inner_NK = _back(grad_NO, weight, down_c, up_c, ctx.scale)
            grad_x = grad_NI.view(ctx.shape)
        else:
            grad_inner_NK, grad_x = (grad_NO @ up_c).mul_(ctx.scale), None
        return grad_x, None, None, _grad(grad_inner_NK, x_NI, down), _grad(grad_NO, inner_NK, up, ctx.scale), None


class _GatedMlp(torch.autograd.Function):
    """``down(silu(gate(x)) · up(x))``, all three with LoRA; keeps x, gate(x) and up(x), and computes their product again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, *rest: Any) -> Tensor:
        *adapters, scale_gate, scale_up, scale_down = rest
        gate_a, gate_b, up_a, up_b, down_a, down_b = (adapter.to(x.dtype) for adapter in adapters)
        x_NI = x.reshape(-1, x.shape[-1])
        gate_NO, inner_gate = _product(x_NI, w_gate, None, gate_a, gate_b, scale_gate)
        up_NO, inner_up = _product(x_NI, w_up, None, up_a, up_b, scale_up)
        y_NI, inner_down = _product(nn.functional.silu(gate_NO).mul_(up_NO), w_down, None, down_a, down_b, scale_down)
        ctx.save_for_backward(x_NI, gate_NO, up_NO, inner_gate, inner_up, inner_down, w_gate, w_up, w_down, *adapters)
        ctx.scales, ctx.shape = (scale_gate, scale_up, scale_down), x.shape
        return y_NI.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x_NI, gate_NO, up_NO, inner_gate, inner_up, inner_down, w_gate, w_up, w_down, *adapters = ctx.saved_tensors
        gate_a, gate_b, up_a, up_b, down_a, down_b = (adapter.to(grad.dtype) for adapter in adapters)
        scale_gate, scale_up, scale_down = ctx.scales
        grad_NI = grad.reshape(-1, grad.shape[-1])
        grad_hidden, grad_inner_down = _back(grad_NI, w_down, down_a, down_b, scale_down)
        act = nn.functional.silu(gate_NO)
        grad_down_a = _grad(grad_inner_down, act * up_NO, adapters[4])
        grad_up = act.mul_(grad_hidden)
        grad_gate = torch.ops.aten.silu_backward(grad_hidden.mul_(up_NO), gate_NO)
        grad_x, grad_inner_gate = _back(grad_gate, w_gate, gate_a, gate_b, scale_gate)
        grad_x, grad_inner_up = _back(grad_up, w_up, up_a, up_b, scale_up, into=grad_x)
        return (
            grad_x.view(ctx.shape),
            None,
            None,
            None,
            _grad(grad_inner_gate, x_NI, adapters[0]),
            _grad(grad_gate, inner_gate, adapters[1], scale_gate),
            _grad(grad_inner_up, x_NI, adapters[2]),
            _grad(grad_up, inner_up, adapters[3], scale_up),
            grad_down_a,
            _grad(grad_NI, inner_down, adapters[5], scale_down),
            None,
            None,
            None,
        )


def _grad(out_NA: Tensor, in_NB: Tensor, parameter: Tensor, scale: float = 1.0) -> Tensor:
    """Gradient ``[A, B]`` of an adapter matrix, in the parameter's own dtype (float32)."""
    return (out_NA.t() @ in_NB).to(parameter.dtype).mul_(scale)


def _wide(x: Tensor) -> Tensor:
    """`x` in float32, or as it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


class _RmsNorm(torch.autograd.Function):
    """``x / sqrt(mean(x²) + eps) · weight`` over the last dimension, in float32; keeps x and one number per token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = _wide(x)
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (wide * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, inverse, weight = ctx.saved_tensors
        wide, scaled = _wide(x), _wide(grad * weight)
        along = (scaled * wide).sum(-1, keepdim=True).mul_(inverse.pow(3)).div_(x.shape[-1])
        grad_x = scaled.mul_(inverse).addcmul_(wide, along, value=-1).to(x.dtype)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (_wide(grad) * wide * inverse).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)
        return grad_x, grad_weight, None
