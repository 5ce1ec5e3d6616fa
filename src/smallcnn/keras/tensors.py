"""Names of the tensors that a layer stores."""

from smallcnn.keras.description import Layer


def tensor_names(layer: Layer) -> tuple[str, ...]:
    """Names of a layer's tensors, in Keras' order."""
    config = layer.config
    bias = ("bias",) if config.get("use_bias", config.get("bias", True)) else ()
    match layer.kind:
        case "Conv2D" | "Convolution2D" | "Dense":
            return ("kernel", *bias)
        case "DepthwiseConv2D":
            return ("depthwise_kernel", *bias)
        case "SeparableConv2D" | "SeparableConvolution2D":
            return ("depthwise_kernel", "pointwise_kernel", *bias)
        case "BatchNormalization" | "SyncBatchNormalization":
            learned = [key for key, flag in (("gamma", "scale"), ("beta", "center")) if config.get(flag, True)]
            return (*learned, "moving_mean", "moving_variance")
        case "PReLU":
            return ("alpha",)
        case "Normalization" if config.get("mean") is None:
            return ("mean", "variance", "count")
    return ()
