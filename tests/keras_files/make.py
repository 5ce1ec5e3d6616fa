"""Makes files.zip, small Keras files and the answers that Keras itself gives: python make.py

With Keras 3 and any of its backends; the tests need neither.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

import keras

HERE = Path(__file__).parent
layers = keras.layers


def base() -> keras.Model:
    """A backbone as transfer learning has it: layers with automatic names, one that runs before those made earlier."""
    late = layers.Conv2D(6, 1, use_bias=False)
    image = layers.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(layers.ZeroPadding2D(((0, 1), (1, 0)))(x))
    y = layers.BatchNormalization(scale=False)(y)
    y = layers.Activation("relu")(layers.Cropping2D(((0, 1), (0, 1)))(y))
    return keras.Model(image, layers.BatchNormalization()(late(y)), name="backbone")


def transfer() -> keras.Model:
    """A frozen backbone, a head with squeeze-and-excitation."""
    backbone = base()
    backbone.trainable = False
    image = layers.Input((12, 12, 3))
    x = backbone(layers.Rescaling(1 / 127.5, offset=-1)(image))
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(6, 1, activation="hard_sigmoid")(s)
    x = layers.Multiply()([x, s])
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2, padding="same")(x)])
    x = layers.Flatten()(layers.LeakyReLU(negative_slope=0.1)(x))
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Dropout(0.2)(x)), name="transfer")


def sequence() -> keras.Model:
    """A backbone of which some layers train, in a sequence; one sigmoid."""
    backbone = base()
    for layer in backbone.layers[:3]:
        layer.trainable = False
    head = [layers.SeparableConv2D(5, 3, padding="same", activation="relu"), layers.GlobalMaxPooling2D()]
    return keras.Sequential([layers.Input((12, 12, 3)), backbone, *head, layers.Dense(1, activation="sigmoid")])


def dilated() -> keras.Model:
    """Filters that read pixels apart from each other, dense, depthwise and separable."""
    image = layers.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, padding="same", dilation_rate=2, activation="relu")(image)
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=(4, 3))(x)
    x = layers.Conv2D(5, (3, 2), dilation_rate=(1, 3), use_bias=False)(x)
    x = layers.SeparableConv2D(6, 2, padding="same", dilation_rate=(3, 3), activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(3, activation="softmax")(x), name="dilated")


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    answers = {}
    for make in (transfer, sequence, dilated):
        keras.backend.clear_session()
        model = make()
        for variable in model.variables:
            value = 0.5 * rng.standard_normal(variable.shape)
            positive = variable.path.endswith(("variance", "gamma"))
            variable.assign(np.round(np.abs(value) + 0.5 if positive else value, 3).astype(np.float32))
        images = rng.integers(0, 256, (2, 12, 12, 3))
        scale = 1 if make is transfer else 1 / 127.5
        given = keras.ops.convert_to_tensor(images * scale - (0 if make is transfer else 1), "float32")
        answers[make.__name__] = {
            "images": images.tolist(),
            "answers": keras.ops.convert_to_numpy(model(given, training=False)).astype(float).tolist(),
        }
        model.save(folder / f"{make.__name__}.keras")
        model.save(folder / f"{make.__name__}.h5")
        model.save_weights(folder / f"{make.__name__}.weights.h5")
    (folder / "answers.json").write_text(json.dumps(answers))
    with zipfile.ZipFile(HERE / "files.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        sys.exit(main(Path(made)))
