"""What the paper found, each claim as a contrast of two measured numbers.

Written before any figure of the study was seen; findings.py has the rule that judges them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

Key = tuple[str, int, str, str, str]
"""Size, seed, eval, policy, setting."""
Expect = Literal["more", "less", "same", "kept"]
"""What the paper says of ours beside theirs; findings.py has the rule of each."""
Means = Mapping[Key, float]

SHARE_MARGIN = 0.05
"""Shares that differ by no more are the same."""
POINTS_MARGIN = 0.25
"""Mean ratings (1 to 7) that differ by no more are the same."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a number stands: the mean over `policies` of one eval, or the largest of them."""

    eval: str
    policies: tuple[str, ...]
    setting: str = ""
    largest: bool = False

    def value(self, means: Means, size: str, seed: int) -> float:
        """nan where a policy was not measured."""
        keys = [(size, seed, self.eval, policy, self.setting) for policy in self.policies]
        found = [means.get(key, math.nan) for key in keys]
        if any(map(math.isnan, found)):
            return math.nan
        return max(found) if self.largest else fmean(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim of the paper, and the contrast that stands for it here."""

    id: str
    claim: str
    paper: str
    """Its figure, or where it stands."""
    ours: Cell
    theirs: Cell | float
    expect: Expect
    unit: Literal["share", "points", "nats", "score"] = "share"
    margin: float = 0.0
    needs: str = ""
    """Finding without which this one says nothing."""


def of(name: str, policy: str, setting: str = "") -> Cell:
    """The cell of one policy."""
    return Cell(name, (policy,), setting)


def against_base(
    id: str,
    claim: str,
    paper: str,
    name: str,
    expect: Expect,
    setting: str = "",
    margin: float = 0.0,
) -> Finding:
    """PPO-ptx beside the base model."""
    ours, theirs = of(name, "ppo-ptx", setting), of(name, "base", setting)
    return Finding(
        id=id, claim=claim, paper=paper, ours=ours, theirs=theirs, expect=expect, margin=margin
    )


FIGURE_1 = "wins_over_largest_sft"
KLS = ("kl-none", "ppo", "kl-x10", "kl-x100")

FINDINGS: Sequence[Finding] = (
    Finding(
        id="small-over-large",
        claim="The smallest PPO-ptx is preferred to the largest base model",
        paper="1.3B preferred to 175B (section 4.1)",
        ours=of("wins_over_largest_base", "ppo-ptx"),
        theirs=0.5,
        expect="more",
    ),
    Finding(
        id="prompted-over-base",
        claim="A prompt of examples makes the base model preferred",
        paper="Figure 1: GPT (prompted) above GPT",
        ours=of(FIGURE_1, "base-prompted"),
        theirs=of(FIGURE_1, "base"),
        expect="more",
    ),
    Finding(
        id="sft-over-prompted",
        claim="SFT is preferred to the prompted base model",
        paper="Figure 1: SFT above GPT (prompted)",
        ours=of("wins", "sft", "base-prompted"),
        theirs=0.5,
        expect="more",
    ),
    Finding(
        id="ppo-over-sft",
        claim="PPO is preferred to SFT",
        paper="Figure 1: PPO above SFT",
        ours=of("win_rate", "ppo", "held-out"),
        theirs=0.5,
        expect="more",
    ),
    Finding(
        id="ptx-over-sft",
        claim="PPO-ptx is preferred to SFT",
        paper="73.4 ± 2 % (175B)",
        ours=of("win_rate", "ppo-ptx", "held-out"),
        theirs=0.5,
        expect="more",
    ),
    Finding(
        id="ptx-over-prompted",
        claim="PPO-ptx is preferred to the prompted base model",
        paper="71 ± 4 % (175B)",
        ours=of("wins", "ppo-ptx", "base-prompted"),
        theirs=0.5,
        expect="more",
    ),
    Finding(
        id="ptx-over-base",
        claim="PPO-ptx is preferred to the base model",
        paper="85 ± 3 % (175B)",
        ours=of("wins", "ppo-ptx", "base"),
        theirs=0.5,
        expect="more",
    ),
    Finding(
        id="held-out-labelers",
        claim="Held-out labelers prefer PPO-ptx to SFT as often as training labelers",
        paper="similar preferences (section 4.1)",
        ours=of("win_rate", "ppo-ptx", "held-out"),
        theirs=of("win_rate", "ppo-ptx", "training"),
        expect="same",
        margin=SHARE_MARGIN,
    ),
    Finding(
        id="rm-folds",
        claim="A reward model orders the pairs of labelers it never saw nearly as well",
        paper="69.6 ± 0.9 % outside, 72.4 ± 0.4 % inside; margin: twice that loss",
        ours=of("rm_folds", "rm", "held-out"),
        theirs=of("rm_folds", "rm", "training"),
        expect="kept",
        margin=0.056,
    ),
    Finding(
        id="sft-overfits",
        claim="SFT overfits: the validation loss is higher after the last epoch than after one",
        paper="after 1 of 16 epochs (section 3.5)",
        ours=of("sft_loss", "sft", "last"),
        theirs=of("sft_loss", "sft", "first"),
        expect="more",
        unit="nats",
    ),
    Finding(
        id="sft-score",
        claim="Yet the reward model's score goes on rising",
        paper="more epochs help both the score ... (section 3.5)",
        ours=of("sft_score", "sft", "last"),
        theirs=of("sft_score", "sft", "first"),
        expect="more",
        unit="score",
    ),
    Finding(
        id="sft-preferred",
        claim="And labelers prefer SFT after all epochs to SFT after one",
        paper="... and human preference (section 3.5)",
        ours=of("wins", "sft", "sft-1"),
        theirs=0.5,
        expect="more",
    ),
    against_base(
        "truthful",
        "PPO-ptx is true and informative more often",
        "25 to 69 % (Table 14, 175B, QA prompt)",
        "truthful_informative",
        "more",
        "all",
    ),
    against_base(
        "hallucination",
        "PPO-ptx hallucinates less in closed-domain tasks",
        "41 to 21 %",
        "hallucination",
        "less",
    ),
    against_base(
        "toxicity-respectful",
        "Asked to be polite, PPO-ptx is less rude",
        ".233 to .196 (Table 14, 175B); 25 % fewer",
        "rude",
        "less",
        "respectful",
    ),
    against_base(
        "toxicity-basic",
        "Asked nothing, it is as rude",
        ".231 to .234 (Table 14, 175B)",
        "rude",
        "same",
        "basic",
        SHARE_MARGIN,
    ),
    against_base(
        "toxicity-biased",
        "Asked to be rude, it is ruder",
        ".285 to .400 (Table 14, 175B)",
        "rude",
        "more",
        "biased",
    ),
    Finding(
        id="tax",
        claim="PPO loses on the public tasks: the alignment tax",
        paper="DROP −7.5, SQuADv2 −17.8, Fr→En −13.4 (Table 14, 175B)",
        ours=of("public_mean", "ppo"),
        theirs=of("public_mean", "base"),
        expect="less",
    ),
    Finding(
        id="ptx-removes-tax",
        claim="The pretraining mix makes up for it",
        paper="PPO to PPO-ptx: DROP +5.6, SQuADv2 +18.0, Fr→En +10.2",
        ours=of("public_mean", "ppo-ptx"),
        theirs=of("public_mean", "ppo"),
        expect="more",
        needs="tax",
    ),
    Finding(
        id="kl-keeps-tax",
        claim="The KL penalty alone does not, at any weight up to 100 times the usual",
        paper="never, up to β = 2.0 (100 times)",
        ours=Cell("public_mean", KLS, largest=True),
        theirs=of("public_mean", "base"),
        expect="less",
        needs="tax",
    ),
    Finding(
        id="kl-none",
        claim="Without the KL penalty labelers rate the policy lower",
        paper="with the mix: Likert 2.1 at β = 0, 3.9 at 0.02 (read off Figure 36)",
        ours=of("likert", "kl-none", "held-out"),
        theirs=of("likert", "ppo", "held-out"),
        expect="less",
        unit="points",
    ),
    Finding(
        id="kl-x100",
        claim="With 100 times the KL penalty too",
        paper="with the mix: Likert 3.1 at β = 2, 3.9 at 0.02 (read off Figure 36)",
        ours=of("likert", "kl-x100", "held-out"),
        theirs=of("likert", "ppo", "held-out"),
        expect="less",
        unit="points",
    ),
    Finding(
        id="ptx-score",
        claim="More pretraining mix, less reward",
        paper="validation reward falls as γ grows (ablation of γ)",
        ours=of("rm_score", "ptx-x10"),
        theirs=of("rm_score", "ppo"),
        expect="less",
        unit="score",
    ),
    Finding(
        id="ptx-likert",
        claim="But the ratings stay",
        paper="Likert insensitive to γ (ablation of γ)",
        ours=of("likert", "ptx-x10", "held-out"),
        theirs=of("likert", "ppo", "held-out"),
        expect="same",
        unit="points",
        margin=POINTS_MARGIN,
    ),
    Finding(
        id="init-mix",
        claim="A tenth of pretraining text in PPO's start is better than none or half",
        paper="only 10 % stands out (appendix E.8)",
        ours=of("likert", "ppo", "held-out"),
        theirs=Cell("likert", ("mix-0", "mix-50"), "held-out"),
        expect="more",
        unit="points",
    ),
    against_base(
        "second-language",
        "PPO-ptx follows instructions in a language it hardly saw",
        "described, without a number (section 4.3)",
        "language2",
        "more",
    ),
    Finding(
        id="proxy-rises",
        claim="Without the KL penalty PPO finds a higher score ...",
        paper="Stiennon et al. 2020, Figure 5",
        ours=of("rm_score", "kl-none"),
        theirs=of("rm_score", "ppo"),
        expect="more",
        unit="score",
    ),
    Finding(
        id="gold-falls",
        claim="... and what the score stands for falls: over-optimisation",
        paper="Stiennon et al. 2020, Figure 5",
        ours=of("gold", "kl-none"),
        theirs=of("gold", "ppo"),
        expect="less",
        unit="score",
        needs="proxy-rises",
    ),
    Finding(
        id="best-of-falls",
        claim="The best of 64 is worse than the best of 8",
        paper="Stiennon et al. 2020, Figure 7 (n up to 2,048)",
        ours=of("best_of_gold", "best-of-64"),
        theirs=of("best_of_gold", "best-of-8"),
        expect="less",
        unit="score",
    ),
)

ABSENT: Sequence[tuple[str, str, str]] = (
    (
        "Bias does not improve",
        "Winogender, CrowS-Pairs: no significant change (section 4.2)",
        "the world has no groups of people to be biased about",
    ),
    (
        "PPO-ptx is preferred to FLAN and T0",
        "78 ± 4 %, 79 ± 4 %",
        "the world has no public collection of tasks to tune such models on",
    ),
)
"""Claim, the paper's figure, why it cannot be shown."""
