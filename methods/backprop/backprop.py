"""Backprop: the gradient of the cross-entropy through the whole net, and AdamW.

Papers: Rumelhart, Hinton, Williams 1986, "Learning representations by back-propagating errors" (the gradient);
Loshchilov, Hutter 2019, "Decoupled weight decay regularization" (the step); on the denoiser net it is the
baseline of Li, Teh, Pascanu 2025, arXiv 2503.24322, Eq. 17-19.

    delta_l = (W_{l+1}^T delta_{l+1}) * sigma'(a_l),    grad W_l = delta_l h_{l-1}^T

Its settings make it what a user would pick in place of a backprop-free rule; each has a row of its own, in a file
beside this one: `checkpoint`, `micro_batches`, `supervision`, `learns`.
"""

from bench import Claims, MethodInfo, register

from .whole_net import BackpropSettings, WholeNet


@register
class Backprop(WholeNet):
    """One forward and one backward pass through the whole net per step."""

    info = MethodInfo(
        name="backprop",
        title="Backprop",
        role="reference",
        family="backprop",
        paper="rumelhart1986learning, loshchilov2019decoupled",
        claims=Claims(reverse_mode="network", forward_passes=1, weight_transport=True, updates_wait_for="later blocks"),
        outputs=("classes", "class probabilities", "values", "next token"),
        needs=(),
    )
    Config = BackpropSettings
