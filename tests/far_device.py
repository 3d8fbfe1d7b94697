"""A device that is not the host's, for tests: its numbers are the CPU's, its waits are known.

FAR is the CPU under another name. A FarTensor holds a CPU tensor and says that it is on "meta", the
one device besides the CPU that every PyTorch has. Within FarDevice, an operation on FarTensors
computes what a CPU computes, to the bit, but refuses what a GPU refuses: tensors of two devices, or
a generator of another one. Whatever makes the host wait for a GPU is noted.

Not covered: bfloat16, CUDA's kernels, other devices' generators, several processes.
"""

import contextlib
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

FAR, CPU = torch.device("meta"), torch.device("cpu")
STEP = "step"  # the event of an optimizer's step
aten = torch.ops.aten
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
COPIES = (aten._to_copy, aten.copy_)
# Operations whose result, or its shape, the host has to know before it goes on.
READS = (
    *(aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount),
)


class FarTensor(torch.Tensor):
    """A tensor on FAR. `near` is the CPU tensor that it holds."""

    @staticmethod
    def __new__(cls, near: torch.Tensor):
        # A wrapper made in inference mode could not be saved for a backward pass later.
        with torch.inference_mode(False):
            return torch.Tensor._make_wrapper_subclass(
                cls,
                near.shape,
                strides=near.stride(),
                dtype=near.dtype,
                device=FAR,
                requires_grad=near.requires_grad,
            )

    def __init__(self, near: torch.Tensor):
        self.near = near

    def __reduce_ex__(self, protocol):
        # What torch.save writes of a CUDA tensor, torch.load can send anywhere.
        return self.near.detach().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise RuntimeError(f"{operation} on FAR outside of FarDevice")


class FarDevice(TorchDispatchMode):
    """Within it, FAR can be computed on. `events` lists the waits and the optimizer's steps."""

    def __init__(self):
        super().__init__()
        self.events: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves, structure = tree_flatten((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        is_far = result_is_far(operation, args, kwargs, tensors)
        if operation.overloadpacket in COPIES:
            waits = any(isinstance(x, FarTensor) != is_far for x in tensors)
        else:
            refuse_two_devices(operation, kwargs, tensors, is_far)
            waits = is_far and needs_host(operation, args)
        if waits:
            self.events.append(operation.overloadpacket.__name__)
        near = [x.near if isinstance(x, FarTensor) else x for x in leaves]
        near_args, near_kwargs = tree_unflatten(near, structure)
        if kwargs.get("device") is not None:
            near_kwargs["device"] = CPU
        result = operation(*near_args, **near_kwargs)
        if is_far:
            result = tree_map_only(torch.Tensor, FarTensor, result)
        if not any(isinstance(x, FarTensor) for x in tensors):
            return result
        return return_and_correct_aliasing(operation, args, kwargs, result)


def result_is_far(operation, args, kwargs, tensors) -> bool:
    """Whether an operation computes on FAR."""
    if operation.overloadpacket is aten.copy_:
        return isinstance(args[0], FarTensor)
    device = kwargs.get("device")
    if device is not None:
        return torch.device(device) == FAR
    return any(isinstance(x, FarTensor) for x in tensors)


def refuse_two_devices(operation, kwargs, tensors, is_far) -> None:
    """Raise RuntimeError where CUDA would."""
    far = [x for x in tensors if isinstance(x, FarTensor)]
    # A number of the CPU may go along with an operation, but not as an index.
    indexing = operation.overloadpacket in INDEXING
    near = [x for x in tensors if not isinstance(x, FarTensor) and (x.dim() or indexing)]
    if far and near:
        raise RuntimeError(f"{operation}: tensors on two devices")
    if is_far and kwargs.get("generator") is not None:
        raise RuntimeError(f"{operation}: a generator of another device")


def needs_host(operation, args) -> bool:
    """Whether the host waits for the result, or its shape, of an operation on FAR."""
    if operation.overloadpacket in INDEXING:
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    return operation.overloadpacket in READS


def teach_torch(patch) -> FarDevice:
    """Make torch take FAR for a device; returns the mode. patch: pytest's monkeypatch."""
    mode, sgd = FarDevice(), sys.modules[torch.optim.SGD.__module__]
    tensor, load, step = torch.tensor, torch.load, torch.optim.SGD.step

    def make_tensor(values, device=CPU, **options):
        return tensor(values, **options).to(device)

    def load_there(file, map_location=CPU, **options):
        content = load(file, map_location=CPU, **options)
        return tree_map_only(torch.Tensor, lambda x: x.to(map_location), content)

    def noted_step(self):
        mode.events.append(STEP)
        return step(self)

    # These make their tensors where no mode sees it.
    patch.setattr(torch, "tensor", make_tensor)
    patch.setattr(torch, "load", load_there)
    patch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    patch.setattr(sgd, "_device_dtype_check_for_fused", lambda *args, **options: None)
    patch.setattr(torch.optim.SGD, "step", noted_step)
    return mode
