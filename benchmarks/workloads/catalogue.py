"""The workloads that come with the benchmark, as data: nothing of torch is imported before one is used."""

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks.workloads.workload import DISTANCE, LOSS, PERPLEXITY, RMSE, TOP1, Metric, Option, Workload

_HERE = "benchmarks.workloads"
_NETS = f"{_HERE}.models"

EXAMPLES: Mapping[str, int] = MappingProxyType(
    {
        "digits": 1437,
        "fashion": 60_000,
        "cifar10": 50_000,
        "cifar100": 50_000,
        "imagenet": 1_281_167,
        "ring": 8192,
        f"{_HERE}.zipf:classes": 20_000,
        f"{_HERE}.tabular:friedman": 2000,
    }
)
"""Size of the training set by data set, at its default options; texts differ between versions of Python."""

_HIDDEN = {"hidden": Option(int, 1, 65_536)}


def _width(narrowest: int) -> dict[str, Option]:
    """A factor on all channel counts that leaves at least one channel of the fewest."""
    return {"width": Option(float, 1 / narrowest, 16)}


def _images(
    dataset: str, network: str, description: str, where: str, options: Mapping[str, Option], **fixed: object
) -> Workload:
    """A network that classifies images."""
    return Workload(
        name=f"{dataset}-{network}",
        description=description,
        dataset=dataset,
        task="classification",
        metric=TOP1,
        network=f"{_NETS}.{where}",
        trainer=f"{_HERE}.classification:Images",
        options=options,
        fixed=fixed,
        train_examples=EXAMPLES[dataset],
    )


_CIFAR_NETS = {
    "vgg16": ("VGG-16 with batch norm, as in the authors' code", "vgg:VGG16", 64),
    "resnet18": ("ResNet-18, CIFAR form", "resnet:resnet18", 64),
    "wrn16-4": ("WRN-16-4 as in the authors' code: post-activation, 64-wide stem", "resnet:wrn_16_4_authors", 64),
    "wrn16-4-original": ("WRN-16-4 as published: pre-activation", "wide_resnet:WideResNet", 16),
}


def _cifar() -> list[Workload]:
    return [
        _images(f"cifar{classes}", net, f"{title}, on CIFAR-{classes}", where, _width(narrowest), classes=classes)
        for classes in (10, 100)
        for net, (title, where, narrowest) in _CIFAR_NETS.items()
    ]


def _imagenet() -> list[Workload]:
    return [
        Workload(
            name=f"imagenet-{name}",
            description=f"torchvision's {model}, on ImageNet",
            dataset="imagenet",
            task="classification",
            metric=TOP1,
            network="torchvision.models:get_model",
            trainer=f"{_HERE}.imagenet:ImageNet",
            options={"size": Option(int, 32, 1024)},
            fixed={"name": model},
            train_examples=EXAMPLES["imagenet"],
        )
        for name, model in (("vgg16", "vgg16_bn"), ("resnet18", "resnet18"))
    ]


def _text(
    name: str, description: str, dataset: str, network: str, options: Mapping[str, Option], **fixed: object
) -> Workload:
    """A network that tells the next character."""
    return Workload(
        name=name,
        description=description,
        dataset=dataset,
        task="language",
        metric=PERPLEXITY,
        network=f"{_NETS}.{network}",
        trainer=f"{_HERE}.classification:{'Text' if dataset == 'text' else 'Prose'}",
        options=options,
        fixed={"classes": 128, **fixed},
    )


_SIZES = {"small": (64, 2, "0.1 M"), "medium": (128, 4, "0.4 M"), "large": (256, 4, "1.6 M")}


def _transformers() -> list[Workload]:
    return [
        _text(
            f"prose-transformer-{size}",
            f"character transformer, {parameters} parameters, on deduplicated prose from Python's standard library",
            "prose",
            "transformer:CharTransformer",
            {"tied": Option(bool)},
            width=width,
            heads=heads,
        )
        for size, (width, heads, parameters) in _SIZES.items()
    ]


def _gan(
    name: str, description: str, dataset: str, network: str, trainer: str, options: Mapping[str, Option]
) -> Workload:
    """A generator and a discriminator."""
    return Workload(
        name=name,
        description=description,
        dataset=dataset,
        task="gan",
        metric=DISTANCE,
        network=f"{_NETS}.{network}",
        trainer=f"{_HERE}.gan:{trainer}",
        options=options,
        train_examples=EXAMPLES[dataset],
    )


def _generated(
    name: str, description: str, dataset: str, network: str, task: str, metric: Metric, options: Mapping[str, Option]
) -> Workload:
    """A network on data that a function of the benchmark makes from `RunConfig.data_options`."""
    where = f"{_HERE}.{dataset}"
    trainers = {"classification": f"{_HERE}.zipf:Frequencies", "regression": f"{_HERE}.tabular:Tabular"}
    return Workload(
        name=name,
        description=description,
        dataset=where,
        task=task,
        metric=metric,
        network=f"{_NETS}.{network}",
        trainer=trainers[task],
        options=options,
        train_examples=EXAMPLES[where],
    )


def _own(task: str, metric: Metric, trainer: str) -> Workload:
    """A task alone, for a model and data set of one's own."""
    return Workload(
        name=task,
        description=f"{task} with a model and data set of your own",
        dataset="",
        task=task,
        metric=metric,
        network="",
        trainer=f"{_HERE}.own:{trainer}",
        options=None,
    )


_VIT = {"width": Option(int, 4, 4096), "layers": Option(int, 1, 64)}

_WORKLOADS = (
    _images(
        "digits",
        "mlp",
        "two hidden layers on the 8x8 digits inside scikit-learn",
        "small:mlp",
        _HIDDEN,
        inputs=64,
        classes=10,
    ),
    _images(
        "digits", "vit", "tiny vision transformer on the digits", "transformer:ViT", _VIT, size=8, patch=2, classes=10
    ),
    _images(
        "fashion",
        "cnn",
        "two convolutions with batch norm, on Fashion-MNIST",
        "small:cnn",
        {**_width(16), "batch_norm": Option(bool)},
        classes=10,
    ),
    _images(
        "fashion",
        "vit",
        "tiny vision transformer on Fashion-MNIST",
        "transformer:ViT",
        _VIT,
        size=28,
        patch=4,
        classes=10,
    ),
    *_cifar(),
    _images(
        "cifar10",
        "fast",
        "small fast network on CIFAR-10 in the spirit of airbench: 0.4 M parameters, minutes on a CPU",
        "fast:FastNet",
        _width(16),
        classes=10,
    ),
    *_imagenet(),
    _text(
        "text-lstm",
        "character LSTM on the manual inside Python's standard library, repetitions and all",
        "text",
        "small:CharLSTM",
        _HIDDEN,
    ),
    _text(
        "prose-lstm",
        "character LSTM on deduplicated prose from Python's standard library",
        "prose",
        "small:CharLSTM",
        _HIDDEN,
    ),
    *_transformers(),
    _generated(
        "zipf-softmax",
        "softmax regression on classes whose frequencies follow Zipf's law",
        "zipf:classes",
        "small:softmax_regression",
        "classification",
        LOSS,
        {"bias": Option(bool)},
    ),
    _generated(
        "friedman-mlp",
        "two hidden layers on Friedman's first regression problem",
        "tabular:friedman",
        "small:mlp",
        "regression",
        RMSE,
        _HIDDEN,
    ),
    _gan("ring-gan", "a GAN on eight Gaussians in the plane", "ring", "small:ring_gan", "Ring", _HIDDEN),
    _gan("fashion-dcgan", "a small DCGAN on Fashion-MNIST", "fashion", "small:dcgan", "Adversarial", _width(32)),
    _own("classification", TOP1, "Classification"),
    _own("language", PERPLEXITY, "Language"),
    _own("regression", RMSE, "Regression"),
)

REGISTRY: Mapping[str, Workload] = MappingProxyType({workload.name: workload for workload in _WORKLOADS})
"""All of them by name."""
