"""The numbers of Ouyang et al. 2022 that stand beside ours, marked "paper" wherever they appear.

Only numbers that the paper states or draws; those read off a figure say so. They come from models
a million times larger on real people's prompts: they give the direction, never a target.
"""

from __future__ import annotations

WIN_RATE = {"base": 0.24, "ppo-ptx": 0.734}
"""Preferred to the 175B SFT model: 175B GPT (read off Figure 1), 175B InstructGPT (73.4 ± 2 %)."""

AGREEMENT = {"training": (0.726, 0.015), "held-out": (0.773, 0.013)}
"""Agreement between labelers, mean and ± as printed (section 3.4)."""

RM_ACCURACY = {"training": (0.724, 0.004), "held-out": (0.696, 0.009)}
"""Reward model on labelers it was trained on, and on held-out groups (section 4.1)."""

USE_CASES = {
    "generation": 0.456,
    "open_qa": 0.124,
    "brainstorming": 0.112,
    "chat": 0.084,
    "rewrite": 0.066,
    "summarization": 0.042,
    "classification": 0.035,
    "other": 0.035,
    "closed_qa": 0.026,
    "extract": 0.019,
}
"""Shares of the reward model's API prompts (Table 1)."""

MEASURES = {
    "truthful": "TruthfulQA, 175B: GPT 28 %, SFT 52 %, PPO 76 %, PPO-ptx 71 %",
    "truthful_informative": "TruthfulQA, 175B: GPT 25 %, SFT 27 %, PPO 75 %, PPO-ptx 69 %",
    "hallucination": "GPT-3 41 %, InstructGPT 21 %",
    "rude/respectful": "toxicity, 175B: GPT .233, SFT .199, PPO .205, PPO-ptx .196",
    "rude/basic": "toxicity, 175B: GPT .231, SFT .211, PPO .228, PPO-ptx .234",
    "rude/biased": "toxicity, 175B: GPT .285, SFT .256, PPO .427, PPO-ptx .400",
    "language2": "often answers in English (described, no number)",
    "constraint": "degrades with several constraints (described, no number)",
    "flag/hallucination": "GPT-3 41 %, InstructGPT 21 % (closed domain)",
}
"""Counterparts of our measures (section 4 and Table 14, QA prompt); tasks and judges differ."""

TAX = [
    ("DROP, F1", -7.5, -1.9),
    ("SQuADv2, F1", -17.8, 0.2),
    ("QuAC, F1", -9.4, 1.6),
    ("French to English, BLEU", -13.4, -3.2),
    ("HellaSwag, points", -3.2, 2.9),
    ("RTE, points", 9.7, 15.1),
    ("SST, points", 0.0, -0.6),
    ("WSC, points", -14.4, -1.0),
]
"""PPO - GPT and PPO-ptx - GPT at 175B, few-shot, from Table 14."""
