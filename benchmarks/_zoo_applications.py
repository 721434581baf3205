"""Models of the zoo that Keras has ready: one of each family, as small as it goes, with random weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from _zoo_images import images

_CLASSES, _BATCH_SIZE = 10, 4
_MADE = {
    "convnext_tiny": (keras.applications.ConvNeXtTiny, 64),
    "densenet121": (keras.applications.DenseNet121, 64),
    "efficientnet_b0": (keras.applications.EfficientNetB0, 64),
    "inception_resnet_v2": (keras.applications.InceptionResNetV2, 96),
    "inception_v3": (keras.applications.InceptionV3, 96),
    "mobilenet": (keras.applications.MobileNet, 64),
    "mobilenet_v3_small": (keras.applications.MobileNetV3Small, 64),
    "nasnet_mobile": (keras.applications.NASNetMobile, 64),
    "resnet50_v2": (keras.applications.ResNet50V2, 64),
    "vgg16": (keras.applications.VGG16, 48),
    "vgg19": (keras.applications.VGG19, 48),
    "xception": (keras.applications.Xception, 75),
}


def __getattr__(name: str) -> Callable[..., tuple[keras.Model, Any, Any]]:
    if name not in _MADE:
        raise AttributeError(name)
    return functools.partial(_application, *_MADE[name])


def _application(make: Any, size: int, **compiled: bool) -> tuple[keras.Model, Any, Any]:
    model = make(weights=None, input_shape=(size, size, 3), classes=_CLASSES, classifier_activation=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Weight decay gives each weight two values in a step.
    model.compile(keras.optimizers.AdamW(), loss, metrics=["accuracy"], **compiled)
    return model, images(_BATCH_SIZE, size), np.arange(_BATCH_SIZE) % _CLASSES
