"""Noise schedules of NoProp-DT and the coefficients that follow from them.

Paper: Li, Teh, Pascanu 2025, arXiv 2503.24322, Eq. 3, 5, 6 and 8. Time runs from noise (t = 0) to label (t = T).

    abar_t = prod_{s=t..T} alpha_s,   q(z_t | y) = N(sqrt(abar_t) u_y, 1 - abar_t),   alpha_{t-1} = abar_{t-1} / abar_t
    a_t = sqrt(abar_t) (1 - alpha_{t-1}) / (1 - abar_{t-1})
    b_t = sqrt(alpha_{t-1}) (1 - abar_t) / (1 - abar_{t-1})
    c_t = (1 - abar_t) (1 - alpha_{t-1}) / (1 - abar_{t-1})
    SNR(t) = abar_t / (1 - abar_t)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

COSINE_OFFSET = 0.008  # Nichol, Dhariwal 2021, arXiv 2102.09672, Eq. 17: keeps the first noise step from vanishing


@dataclass(frozen=True)
class Coefficients:
    """Everything Eq. 3 and 8 need. Shape: each (T + 1,) float64, read at t = 0..T.

    a, b, c and snr_gain belong to the step from t-1 to t, so their entry 0 is not defined (NaN). c is a variance.
    """

    abar: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    snr: Tensor
    snr_gain: Tensor

    @property
    def T(self) -> int:
        return len(self.abar) - 1


def coefficients(abar: Tensor) -> Coefficients:
    """The step coefficients of a schedule.

    Shape: abar (T + 1,), growing in t. Raises: ValueError unless 0 <= abar_0 < ... < abar_T < 1.
    """
    if not (abar[0] >= 0 and abar[-1] < 1 and (abar.diff() > 0).all()):
        raise ValueError("abar must grow from noise (t = 0) to label (t = T) and stay within [0, 1)")
    abar = abar.double()
    previous, current = abar[:-1], abar[1:]
    alpha = previous / current  # alpha_{t-1}
    undefined = abar.new_full((1,), math.nan)
    snr = abar / (1 - abar)
    return Coefficients(
        abar=abar,
        a=torch.cat((undefined, current.sqrt() * (1 - alpha) / (1 - previous))),
        b=torch.cat((undefined, alpha.sqrt() * (1 - current) / (1 - previous))),
        c=torch.cat((undefined, (1 - current) * (1 - alpha) / (1 - previous))),
        snr=snr,
        snr_gain=torch.cat((undefined, snr.diff())),
    )


def cosine(T: int, clip: float) -> Tensor:
    """The cosine schedule read from label to noise. Shape: (T + 1,) float64.

    abar_t = clip(f((T-t)/T) / f(0), clip, 1 - clip), f(u) = cos^2(pi/2 (u+s)/(1+s)), s = 0.008. Only the clip keeps
    abar_T below 1, where SNR(T) would be infinite; the paper does not give its value. Where T is so large that the
    clip would swallow a neighbouring step, it is lowered to half of that step, so that abar still grows everywhere.
    """
    u = torch.arange(T, -1, -1, dtype=torch.float64) / T
    f = torch.cos((u + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2
    abar = f / f[-1]
    clip = min(clip, float(abar[1]) / 2, (1 - float(abar[-2])) / 2)
    return abar.clamp(clip, 1 - clip)
