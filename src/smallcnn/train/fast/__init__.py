"""Training kernels for CPUs, which pass through memory less often than layers one by one.

    step = accelerate(module)
    loss = F.cross_entropy(step(images), labels)       instead of module(images)
    loss.backward()

Parameters, buffers and gradients are the module's. A layer's result is stored once, as its convolution wrote it. Each
reader applies batch norm and activation itself; gradients work likewise (native/rows.h).
"""

from smallcnn.train.fast.network import accelerate

__all__ = ["accelerate"]
