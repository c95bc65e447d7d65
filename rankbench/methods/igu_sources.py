"""What the paper and the released code of IGU-LoRA do, and the runs do not: in general, and setting by setting.

An entry of PAPER or CODE: setting -> its value in the source (NEVER: none of them), and what the source does.
"""

from __future__ import annotations

from typing import Any

from rankbench.methods.base import NEVER

PRINTED = (
    "Scale: the run's scale rule; the paper does not say.",
    "Budget counts parameters unless budget.unit=ranks; the paper counts ranks.",
    "Nothing is stopped early; the paper trains on after the last cut until the loss rises.",
)
RELEASED = (
    "Scale: the run's scale rule; the code has 1 / initial rank.",
    "Statistics and scores are in fp32; the code's are in bf16, with many ties.",
    "Ties are broken by site order; the code drops all triplets at the threshold.",
    "Dropout is adapter.dropout; the code has 0.3.",
    "One point of the path per micro-batch: one a step unless train.micro_batch_size is set; the script has 8.",
    "The last cut counts in the budget's unit, so that the budget is met; the code's counts as the others do.",
    "All stages share the run's steps; the script has 5 epochs and then 10.",
    "No checkpoint is chosen on the evaluation split; the code chooses one.",
)

# IGU-LoRA, ICLR 2026 (arXiv 2603.13792); what the paper does not say is left out
PAPER: dict[str, tuple[Any, str]] = {
    "every": (NEVER, "the paper cuts every fifth of an epoch, from the second epoch to the fifth"),
    "schedule": (NEVER, "the paper does not say how the budget falls"),
    "penalty": ("none", "the paper has no penalty"),
    "parametrisation": (NEVER, "the paper trains A and B and decomposes AB anew, which mixes directions"),
    "estimator": ("stochastic", "the paper samples the nodes"),
    "quadrature_steps": (20, "the paper has 20"),
    "endpoints": ("printed", "eq. 6 as printed has an expectation that is not the integral"),
    "ema_every": (NEVER, "the paper averages once per epoch"),
    "path": ("delta", "the paper scales the update (eq. 4)"),
    "jacobian": ("exact", "the paper has the derivative along the path (eq. 4)"),
    "alpha_in_training": (False, "the paper scores apart from the objective"),
    "score_gradient": ("task", "the paper scores the loss of the task"),
    "sign": ("signed", "the paper multiplies |w| by the signed gradient"),
    "score": ("ratio", "the paper divides the mean by the deviation (eq. 11)"),
    "lambda_term": ("magnitude", "the paper scores lambda by |lambda| (eq. 3)"),
    "relative_epsilon": (False, "the paper adds a constant to the deviation"),
    "prune": ("hard", "the paper prunes for good"),
    "stage2": ("continue", "the paper trains on with the pruned adapter"),
}

# withyou12/igulora@3f5ba10; "script": its script for SST-2
CODE: dict[str, tuple[Any, str]] = {
    "every": (NEVER, "the script cuts every 50 of 10,525 steps"),
    "schedule": ("cubic", "the code has a cubic schedule"),
    "orthogonality": (
        8.0,
        "the script adds it with weight 1 to 8 micro-batches, each with an eighth of the task's loss",
    ),
    "stage2_orthogonality": (1.0, "the script's second stage has weight 1"),
    "penalty": ("offdiag", "the code penalises off-diagonal entries"),
    "gate_start": (0.1, "the code starts at 0.1"),
    "parametrisation": ("svd_form", "the code trains the three factors"),
    "estimator": ("stochastic", "the code samples one node"),
    "quadrature_steps": (20, "the code has 20"),
    "endpoints": ("none", "the code samples 1/20 to 20/20"),
    "ema_every": (1, "the code averages at every step"),
    "path": ("factor", "the code scales each factor"),
    "jacobian": ("raw", "the code differentiates through the coefficient"),
    "alpha_in_training": (True, "the code scores the training passes"),
    "score_gradient": ("total", "the code scores with the penalty, clipped"),
    "sign": ("outside", "the code takes |w g|"),
    "score": ("ratio", "the code divides the mean by the deviation"),
    "lambda_term": ("snr", "the code scores lambda as it scores the factors"),
    "epsilon": (1e-6, "the code has 1e-6"),
    "relative_epsilon": (False, "the code adds a constant on both sides"),
    "cut": ("stop", "the code keeps nothing below the first triplet that is cut"),
    "cost": ("code", "the code has a cost model of its own"),
    "prune": ("soft", "the code lets triplets regrow until the last cut"),
    "stage2": ("scratch", "the code starts again at the ranks that it found"),
}


def used(source: dict[str, tuple[Any, str]], config: Any) -> dict[str, tuple[Any, str]]:
    """PAPER or CODE without the settings that these settings leave unused."""
    unused = {
        "endpoints": config.estimator != "stochastic",
        "quadrature_steps": config.estimator == "instantaneous",
        "path": config.estimator == "instantaneous",
        "jacobian": config.estimator == "instantaneous",
        "score_gradient": not config.alpha_in_training and config.estimator != "instantaneous",
        "epsilon": config.score != "ratio",
        "relative_epsilon": config.score != "ratio",
        "orthogonality": config.penalty == "none",
        "stage2_orthogonality": config.penalty == "none" or config.stage2 == "continue",
    }
    return {key: value for key, value in source.items() if not unused.get(key)}
