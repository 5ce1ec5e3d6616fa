"""Training on a CPU with kernels of our own: fewer walks through memory than a layer at a time.

    step = accelerate(module)
    loss = F.cross_entropy(step(images), labels)       instead of module(images)
    loss.backward()

Parameters, buffers and gradients are the module's. What a layer computes stays in memory once, as its convolution wrote
it; batch norm and activation are applied by whoever reads it, and gradients likewise (native/rows.h).
"""

from smallcnn.train.fast.network import accelerate

__all__ = ["accelerate"]
