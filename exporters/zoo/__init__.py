"""Ready tasks: what the exporter is tested and measured on, and what to begin one's own from."""

from __future__ import annotations

__all__ = ["TASKS"]

# Name -> what `ftte export` and a run file take.
TASKS = {
    "digits": "exporters.zoo.digits:task",
    "mlp": "exporters.zoo.dense:mlp",
    "lenet": "exporters.zoo.convnets:lenet",
    "group_norm": "exporters.zoo.convnets:group_norm",
    "cifar": "exporters.zoo.convnets:cifar",
    "mobilenet_v2": "exporters.zoo.mobilenets:mobilenet_v2",
    "mobilenet_v2_folded": "exporters.zoo.mobilenets:mobilenet_v2_folded",
    "mobilenet_v3": "exporters.zoo.mobilenets:mobilenet_v3",
    "resnet20": "exporters.zoo.resnets:resnet20",
    "ds_cnn": "exporters.zoo.sensors:ds_cnn",
    "motion": "exporters.zoo.sensors:motion",
    "gru": "exporters.zoo.sensors:gru",
    "lstm": "exporters.zoo.sensors:lstm",
    "vit": "exporters.zoo.transformers:vit",
    "text": "exporters.zoo.transformers:text",
    "encoder": "exporters.zoo.transformers:encoder",
    "language_model": "exporters.zoo.transformers:language_model",
    "unet": "exporters.zoo.unets:unet",
    "autoencoder": "exporters.zoo.unets:autoencoder",
    "shufflenet": "exporters.zoo.shufflenets:shufflenet",
}
