"""Maps from gradients: integrated gradients, input times gradient, and Grad-CAM.

Each takes a `Substitution` and returns a relevance of every number or token there, in the unit of the target.
"""

import torch
from captum.attr import InputXGradient, IntegratedGradients
from torch import Tensor

from fgdiag_probes.substitution import AT_ONCE, Substitution

STEPS = 32
"""Points between the blurred picture and the picture at which gradients are taken."""


def integrated_gradients(given: Substitution, steps: int = STEPS) -> Tensor:
    """Gradients along the straight way from the blurred picture to the picture, times what is put in on it.

    Sundararajan, Taly & Yan (2017, arXiv 1703.01365), by captum; the blurred picture as the start is that of
    Sturmfels, Lundberg & Lee (2020, doi 10.23915/distill.00022). The relevances sum to the difference of the scores of
    the two pictures, up to the error of the sum over `steps` points.

    Returns
    -------
    Tensor
        Of the shape of `given.original`; at image tokens summed over their width, (1, tokens).
    """
    method = IntegratedGradients(given.scores)
    found = method.attribute(
        given.original.detach().clone().requires_grad_(),
        given.blurred,
        n_steps=steps,
        internal_batch_size=AT_ONCE,
    )
    return _by_place(given, found)


def input_times_gradient(given: Substitution) -> Tensor:
    """Gradient at the picture times what the picture has and the blurred one has not.

    Shrikumar et al. (2016, arXiv 1605.01713), by captum. It is the first step of `integrated_gradients` alone, taken at
    the picture itself.

    Returns
    -------
    Tensor
        As `integrated_gradients`.
    """

    def scores(detail: Tensor) -> Tensor:
        return given.scores(given.blurred + detail)

    detail = (given.original - given.blurred).detach().requires_grad_()
    return _by_place(given, InputXGradient(scores).attribute(detail))


def grad_cam(given: Substitution) -> Tensor:
    """Image tokens weighted by the gradient averaged over all of them.

    Selvaraju et al. (2017, arXiv 1610.02391), for tokens in place of the positions of a convolution, and without the
    rectifier at the end: a contrast has two sides, and what speaks for the other class is told as negative.

    Returns
    -------
    Tensor
        (1, tokens).
    """
    tokens = given.original.detach().clone().requires_grad_()
    with torch.enable_grad():
        [gradient] = torch.autograd.grad(given.scores(tokens).sum(), tokens)
    return (tokens * gradient.mean(1, keepdim=True)).sum(-1).detach()


def _by_place(given: Substitution, relevance: Tensor) -> Tensor:
    return (relevance if given.entry == "pixels" else relevance.sum(-1)).detach()
