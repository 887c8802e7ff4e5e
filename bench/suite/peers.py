"""Other packages' explanations, each on a copy of the network, as its documentation has it run.

What they set up once stands in no time here: hooks, merged normalisations.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

from onnxplain.bench.suite.candidate import Candidate, Run
from onnxplain.bench.suite.job import LAYERS, Job
from onnxplain.bench.suite.pytorch import tensors, waited

INTEGRATION_STEPS = 20


def peer_candidates(maps: bool) -> Iterator[Candidate]:
    """Those of the packages that are installed; activation maps if asked for."""
    if importlib.util.find_spec("captum"):
        yield Candidate("Captum Saliency", "pixels", "Captum", partial(_captum, name="Saliency"))
        guided = partial(_captum, name="GuidedBackprop")
        yield Candidate("Captum GuidedBackprop", "pixels", "Captum", guided)
        count = INTEGRATION_STEPS  # images at once, so that VGG's activations for 8 fit in memory
        steps = partial(
            _captum, name="IntegratedGradients", n_steps=count, internal_batch_size=count
        )
        yield Candidate(
            f"Captum IntegratedGradients-{INTEGRATION_STEPS}", "pixels", "Captum", steps
        )
    if importlib.util.find_spec("zennit"):
        guided = partial(_zennit, name="GuidedBackprop")
        yield Candidate("zennit GuidedBackprop", "pixels", "zennit", guided)
        yield Candidate(
            "zennit EpsilonPlus", "pixels", "zennit", partial(_zennit, name="EpsilonPlus")
        )
    if maps and importlib.util.find_spec("pytorch_grad_cam"):
        yield Candidate("pytorch-grad-cam GradCAM", "map", "pytorch-grad-cam", _grad_cam)


def _captum(job: Job, name: str, **options: Any) -> Run:
    import captum.attr

    images, targets = tensors(job)
    method = getattr(captum.attr, name)(copy.deepcopy(job.module))
    return lambda: waited(method.attribute(images, target=targets, **options))


def _zennit(job: Job, name: str) -> Run:
    import torch
    import zennit.composites
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    images, targets = tensors(job)
    canonizer = (
        ResNetCanonizer
        if job.network.startswith("resnet")
        else VGGCanonizer
        if job.network.startswith("vgg")
        else SequentialMergeBatchNorm
    )
    composite = getattr(zennit.composites, name)(canonizers=[canonizer()])
    attributor = Gradient(copy.deepcopy(job.module), composite)
    attributor.__enter__()  # hooks it up, for as long as the benchmark runs it
    seeds = torch.nn.functional.one_hot(targets, job.classes).to(images)

    return lambda: waited(attributor(images, seeds)[1])


def _grad_cam(job: Job) -> Run:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images, targets = tensors(job)
    module = copy.deepcopy(job.module)
    cam = GradCAM(module, [module.get_submodule(LAYERS[job.network])])
    wanted = [ClassifierOutputTarget(int(target)) for target in targets]
    return lambda: cam(images, wanted)
