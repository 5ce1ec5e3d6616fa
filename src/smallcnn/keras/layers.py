"""The supported Keras layers, by class.

Each function takes the network so far and the call, adds nodes and returns the result as a view: a Keras tensor is a
node's result with its axes arranged in some way (`foreign.views`), channels last.
"""

from smallcnn.keras import activations, moving, numbers, resizing, windows
from smallcnn.keras.call import Reader

READERS: dict[str, Reader] = {
    "Activation": activations.activation,
    "ActivityRegularization": moving.same,
    "Add": numbers.add,
    "AlphaDropout": moving.same,
    "Average": numbers.average,
    "AveragePooling2D": windows.pool("average"),
    "BatchNormalization": numbers.batch_norm,
    "Concatenate": numbers.concatenate,
    "Conv2D": windows.conv,
    "Convolution2D": windows.conv,
    "Cropping2D": windows.cropping,
    "Dense": windows.dense,
    "DepthwiseConv2D": windows.depthwise,
    "Divide": numbers.divide,
    "Dropout": moving.same,
    "Flatten": moving.flatten,
    "GaussianDropout": moving.same,
    "GaussianNoise": moving.same,
    "GlobalAveragePooling2D": windows.global_average_pool,
    "GlobalMaxPooling2D": windows.global_max_pool,
    "HardSigmoid": activations.named_activation("hard_sigmoid"),
    "HardSilu": activations.named_activation("hard_silu"),
    "HardSwish": activations.named_activation("hard_swish"),
    "Identity": moving.same,
    "LeakyReLU": activations.leaky_relu,
    "LeakyRelu": activations.leaky_relu,
    "MaxPooling2D": windows.pool("max"),
    "Multiply": numbers.multiply,
    "Normalization": numbers.normalization,
    "PReLU": activations.prelu,
    "Permute": moving.permute,
    "RandomBrightness": moving.same,
    "RandomContrast": moving.same,
    "RandomCrop": moving.cropped,
    "RandomFlip": moving.same,
    "RandomHeight": moving.same,
    "RandomRotation": moving.same,
    "RandomTranslation": moving.same,
    "RandomWidth": moving.same,
    "RandomZoom": moving.same,
    "ReLU": activations.relu,
    "Relu": activations.named_activation("relu"),
    "Relu6": activations.named_activation("relu6"),
    "Rescaling": numbers.rescaling,
    "Reshape": moving.reshape,
    "Resizing": resizing.resizing,
    "SeparableConv2D": windows.separable,
    "SeparableConvolution2D": windows.separable,
    "Sigmoid": activations.named_activation("sigmoid"),
    "Softmax": activations.softmax,
    "SpatialDropout2D": moving.same,
    "Subtract": numbers.subtract,
    "SyncBatchNormalization": numbers.batch_norm,
    "TrueDivide": numbers.divide,
    "UpSampling2D": resizing.upsampling,
    "ZeroPadding2D": windows.zero_padding,
}
"""Layers, and the operations that Keras 3 writes between them."""

FUNCTIONS: dict[str, str] = {
    "__operators__.add": "Add", "math.add": "Add", "math.subtract": "Subtract", "math.multiply": "Multiply",
    "math.truediv": "TrueDivide", "math.divide": "TrueDivide", "nn.relu": "Relu", "nn.relu6": "Relu6",
    "math.sigmoid": "Sigmoid", "nn.sigmoid": "Sigmoid", "identity": "Identity",
    "Add": "Add", "AddV2": "Add", "BiasAdd": "Add", "Sub": "Subtract", "Mul": "Multiply", "RealDiv": "TrueDivide",
    "Relu": "Relu", "Relu6": "Relu6", "Sigmoid": "Sigmoid", "Identity": "Identity",
}  # fmt: skip
"""TensorFlow's operations between layers, as TFOpLambda and TensorFlowOpLayer of Keras 2 name them."""
