"""LoRA layers, gated MLPs and RMS norms with hand-written gradients and fewer passes over memory.

A library's LoRA layer keeps six tensors for its backward pass and adds a full-width intermediate. A library's gated MLP
keeps its activation three times over. Here each is one autograd function that keeps its inputs, recomputes what is
cheap, and accumulates into the matrix product's own output.

Adapters stay float32 parameters (the optimizer's master weights) and are cast where they are used, so a bfloat16
network computes in bfloat16 throughout. Parameters and mathematics stay the same.

`fuse` replaces the forward of layers of known kinds on one model and leaves every other layer alone.

Shapes: ``N`` tokens (all leading dimensions), ``I`` inputs, ``O`` outputs, ``K`` rank.
Source: arXiv 2106.09685, section 4.1 (LoRA); 1910.07467, equation 4 (RMS norm); 2002.05202, equation 6 (gated MLP).
"""

from __future__ import annotations

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adjudge.models.engine.precision import at_least_float32

GATED_MLPS = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")
RMS_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
"""Classes of transformers with exactly the forward that is computed here (Gemma's norm, for one, differs)."""

SILUS = ("SiLU", "SiLUActivation")
"""The class of torch and the class of transformers."""


class LowRank(NamedTuple):
    """The low-rank part of a layer: ``y += scale · (x aᵀ) bᵀ`` with a ``[K, I]`` and b ``[O, K]``."""

    a: Tensor
    b: Tensor
    scale: float


def fuse(model: nn.Module) -> None:
    """Replace the forward of every layer of a known kind. May be called again, after adapters were added."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    for module in model.modules():
        kind = type(module).__name__
        if kind in GATED_MLPS and type(getattr(module, "act_fn", None)).__name__ in SILUS:
            module.forward = MethodType(_mlp_forward, module)  # type: ignore[method-assign]
        elif kind in RMS_NORMS:
            module.forward = MethodType(_norm_forward, module)  # type: ignore[method-assign]
        elif type(module) is LoraLinear and type(module.base_layer) is nn.Linear:
            module.forward = MethodType(_lora_forward, module)  # type: ignore[method-assign]


def low_rank(layer: Any) -> LowRank | None:
    """Return the active adapter of `layer`, None when it has none.

    Raises NotImplementedError for an adapter or a state that only peft's own forward supports.
    """
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
    return LowRank(layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name]))


def _lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args or kwargs:  # for example an adapter named for each row
        return type(self).forward(self, x, *args, **kwargs)
    try:
        low = low_rank(self)
    except NotImplementedError:
        return type(self).forward(self, x)
    base = self.base_layer
    if low is None:
        return nn.functional.linear(x, base.weight, base.bias)
    return _LoraLinear.apply(x, base.weight, base.bias, low.a, low.b, low.scale)


def _mlp_forward(self: Any, x: Tensor) -> Tensor:
    layers = (self.gate_proj, self.up_proj, self.down_proj)
    # Hooks run where a layer is called, and the function below calls none.
    if any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers):
        return type(self).forward(self, x)
    try:
        gate, up, down = (low_rank(layer) for layer in layers)
    except NotImplementedError:
        return type(self).forward(self, x)
    bases = [getattr(layer, "base_layer", layer) for layer in layers]
    plain = all(type(base) is nn.Linear and base.bias is None for base in bases)
    if gate is None or up is None or down is None or not plain:
        activation = nn.functional.silu(self.gate_proj(x), inplace=not torch.is_grad_enabled())
        return self.down_proj(activation * self.up_proj(x))
    return _GatedMlp.apply(
        *_MlpSlots(
            x=x,
            gate_weight=bases[0].weight,
            up_weight=bases[1].weight,
            down_weight=bases[2].weight,
            gate_a=gate.a,
            gate_b=gate.b,
            up_a=up.a,
            up_b=up.b,
            down_a=down.a,
            down_b=down.b,
            gate_scale=gate.scale,
            up_scale=up.scale,
            down_scale=down.scale,
        )
    )


def _norm_forward(self: Any, x: Tensor) -> Tensor:
    return _RmsNorm.apply(x, self.weight, self.variance_epsilon)


def _product(
    x_NI: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return a LoRA layer's output ``[N, O]``, and the inner product ``[N, K]`` for its backward pass."""
    inner_NK = x_NI @ a.t()
    y_NO = nn.functional.linear(x_NI, weight, bias)
    return y_NO.addmm_(inner_NK, b.t(), alpha=scale), inner_NK


def _back(
    grad_NO: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, into: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradients at a LoRA layer's input ``[N, I]`` and at its inner product ``[N, K]``.

    The first is added to `into`, if that is passed.
    """
    inner_NK = (grad_NO @ b).mul_(scale)
    grad_NI = grad_NO @ weight if into is None else into.addmm_(grad_NO, weight)
    return grad_NI.addmm_(inner_NK, a), inner_NK


class _LoraLinear(torch.autograd.Function):
    """``x Wᵀ + bias + scale · (x aᵀ) bᵀ``; keeps x and the inner product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        y_NO, inner_NK = _product(x_NI, weight, bias, a.to(x.dtype), b.to(x.dtype), scale)
        ctx.save_for_backward(x_NI, inner_NK, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return y_NO.view(*x.shape[:-1], y_NO.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x_NI, inner_NK, weight, a, b = ctx.saved_tensors
        grad_NO = grad.reshape(-1, grad.shape[-1])
        cast_a, cast_b = a.to(grad.dtype), b.to(grad.dtype)
        if ctx.needs_input_grad[0]:
            grad_NI, grad_inner_NK = _back(grad_NO, weight, cast_a, cast_b, ctx.scale)
            grad_x = grad_NI.view(ctx.shape)
        else:
            grad_inner_NK, grad_x = (grad_NO @ cast_b).mul_(ctx.scale), None
        return grad_x, None, None, _grad(grad_inner_NK, x_NI, a), _grad(grad_NO, inner_NK, b, ctx.scale), None


class _MlpSlots(NamedTuple):
    """The arguments of `_GatedMlp` in their order, and, in the same order, their gradients."""

    x: Any = None
    gate_weight: Any = None
    up_weight: Any = None
    down_weight: Any = None
    gate_a: Any = None
    gate_b: Any = None
    up_a: Any = None
    up_b: Any = None
    down_a: Any = None
    down_b: Any = None
    gate_scale: Any = None
    up_scale: Any = None
    down_scale: Any = None

    def cast(self, dtype: torch.dtype) -> _MlpSlots:
        """Return the same with the adapters in `dtype`."""
        names = ("gate_a", "gate_b", "up_a", "up_b", "down_a", "down_b")
        return self._replace(**{name: getattr(self, name).to(dtype) for name in names})


class _GatedMlp(torch.autograd.Function):
    """``down(silu(gate(x)) · up(x))``, all three with LoRA.

    Keeps x, gate(x) and up(x), and computes the activation again.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        kept = _MlpSlots(*arguments)
        x, mlp = kept.x, kept.cast(kept.x.dtype)
        x_NI = x.reshape(-1, x.shape[-1])
        gate_NO, inner_gate = _product(x_NI, mlp.gate_weight, None, mlp.gate_a, mlp.gate_b, mlp.gate_scale)
        up_NO, inner_up = _product(x_NI, mlp.up_weight, None, mlp.up_a, mlp.up_b, mlp.up_scale)
        act_NO = nn.functional.silu(gate_NO).mul_(up_NO)
        y_NI, inner_down = _product(act_NO, mlp.down_weight, None, mlp.down_a, mlp.down_b, mlp.down_scale)
        tensors = kept[1:-3]  # weights and adapters, the latter in their own dtype
        ctx.save_for_backward(gate_NO, up_NO, inner_gate, inner_up, inner_down, x_NI, *tensors)
        ctx.scales, ctx.shape = kept[-3:], x.shape
        return y_NI.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        gate_NO, up_NO, inner_gate, inner_up, inner_down, *tensors = ctx.saved_tensors
        kept = _MlpSlots(*tensors, *ctx.scales)
        x_NI, mlp = kept.x, kept.cast(grad.dtype)
        grad_NI = grad.reshape(-1, grad.shape[-1])
        grad_hidden, grad_inner_down = _back(grad_NI, mlp.down_weight, mlp.down_a, mlp.down_b, mlp.down_scale)
        act = nn.functional.silu(gate_NO)
        grad_down_a = _grad(grad_inner_down, act * up_NO, kept.down_a)
        grad_up = act.mul_(grad_hidden)
        grad_gate = torch.ops.aten.silu_backward(grad_hidden.mul_(up_NO), gate_NO)
        grad_x, grad_inner_gate = _back(grad_gate, mlp.gate_weight, mlp.gate_a, mlp.gate_b, mlp.gate_scale)
        grad_x, grad_inner_up = _back(grad_up, mlp.up_weight, mlp.up_a, mlp.up_b, mlp.up_scale, into=grad_x)
        return tuple(
            _MlpSlots(
                x=grad_x.view(ctx.shape),
                gate_a=_grad(grad_inner_gate, x_NI, kept.gate_a),
                gate_b=_grad(grad_gate, inner_gate, kept.gate_b, kept.gate_scale),
                up_a=_grad(grad_inner_up, x_NI, kept.up_a),
                up_b=_grad(grad_up, inner_up, kept.up_b, kept.up_scale),
                down_a=grad_down_a,
                down_b=_grad(grad_NI, inner_down, kept.down_b, kept.down_scale),
            )
        )


def _grad(out_NA: Tensor, in_NB: Tensor, parameter: Tensor, scale: float = 1.0) -> Tensor:
    """Return the gradient ``[A, B]`` of an adapter matrix, in the parameter's own dtype (float32)."""
    return (out_NA.t() @ in_NB).to(parameter.dtype).mul_(scale)


class _RmsNorm(torch.autograd.Function):
    """``x / sqrt(mean(x²) + eps) · weight`` in float32; keeps x and one number per token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = at_least_float32(x)
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (wide * inverse).to(x.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, inverse, weight = ctx.saved_tensors
        wide, scaled = at_least_float32(x), at_least_float32(grad * weight)
        along = (scaled * wide).sum(-1, keepdim=True).mul_(inverse.pow(3)).div_(x.shape[-1])
        grad_x = scaled.mul_(inverse).addcmul_(wide, along, value=-1).to(x.dtype)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (at_least_float32(grad) * wide * inverse).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)
        return grad_x, grad_weight, None
