"""The numbers of Ouyang et al. 2022 that stand beside ours, marked "paper" wherever they appear.

Only numbers that the paper states or draws; those read off a figure say so. They come from models
thousands of times larger on real people's prompts: they give the direction, never a target.
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

METHODS = ("GPT", "SFT", "PPO", "PPO-ptx")
SIZES = ("1.3B", "6B", "175B")
TABLE_14 = {
    # share of answers; the rows printed "instruction" and "QA + instruct" stand exchanged here, as
    # OpenAI's own released samples of the two prompts have them
    "truthfulqa/qa/true": "share .312 .220 .284 .324 .436 .515 .546 .586 .755 .297 .476 .712",
    "truthfulqa/instruction/true": "share .335 .348 .438 .517 .659 .852 .807 .760 .944 "
    ".322 .494 .610",
    "truthfulqa/qa+instruction/true": "share .340 .414 .570 .360 .756 .665 .634 .928 .879 "
    ".355 .733 .815",
    "truthfulqa/qa/true_informative": "share .193 .186 .251 .267 .253 .271 .524 .574 .752 "
    ".285 .464 .689",
    "truthfulqa/instruction/true_informative": "share .218 .267 .242 .288 .319 .206 "
    ".789 .704 .588 .242 .399 .315",
    "truthfulqa/qa+instruction/true_informative": "share .212 .212 .226 .282 .213 .257 "
    ".559 .187 .382 .339 .350 .494",
    # mean score of the Perspective API
    "real_toxicity/basic/toxicity": "score .228 .229 .231 .198 .211 .211 .213 .214 .228 "
    ".228 .227 .234",
    "real_toxicity/respectful/toxicity": "score .211 .232 .233 .196 .196 .199 .198 .176 .205 "
    ".179 .204 .196",
    "real_toxicity/biased/toxicity": "score .250 .261 .285 .236 .250 .256 .254 .382 .427 "
    ".263 .512 .400",
    # entropy
    "winogender/basic/entropy": "bits .750 .721 .735 .583 .535 .503 .698 .587 .618 .760 .719 .737",
    "winogender/respectful/entropy": "bits .774 .753 .796 .561 .446 .479 .644 .562 .527 "
    ".608 .585 .696",
    "winogender/biased/entropy": "bits .760 .773 .783 .561 .516 .540 .706 .567 .564 .676 .543 .690",
    "crows_pairs/basic/entropy": "bits .448 .430 .410 .356 .326 .241 .355 .361 .326 .448 .434 .413",
    "crows_pairs/respectful/entropy": "bits .419 .413 .362 .302 .260 .204 .281 .258 .270 "
    ".310 .273 .243",
    "crows_pairs/biased/entropy": "bits .420 .419 .353 .305 .252 .187 .287 .288 .223 "
    ".314 .254 .205",
    # public tasks
    "squad_v2/zero-shot/f1": "points 51.97 58.66 64.30 36.88 46.53 57.67 45.37 47.42 43.68 "
    "45.46 47.23 59.85",
    "squad_v2/few-shot/f1": "points 58.86 62.33 69.75 46.62 53.91 65.90 48.11 52.34 51.95 "
    "58.33 63.78 69.93",
    "drop/zero-shot/f1": "points 17.68 19.96 27.53 13.29 13.23 15.79 14.70 12.34 13.08 "
    "14.71 10.64 15.23",
    "drop/few-shot/f1": "points 25.43 30.08 35.27 23.84 30.99 35.85 21.61 27.11 27.78 "
    "23.89 29.39 33.34",
    "quac/zero-shot/f1": "points 32.13 38.19 42.55 34.52 41.19 45.22 29.02 37.64 34.52 "
    "35.04 37.35 41.60",
    "quac/few-shot/f1": "points 36.02 41.78 45.38 35.95 43.13 48.77 31.81 40.63 36.00 "
    "39.40 42.42 46.99",
    "hellaswag/zero-shot/accuracy": "share .549 .673 .781 .528 .672 .753 .507 .646 .743 "
    ".552 .690 .807",
    "hellaswag/few-shot/accuracy": "share .550 .677 .791 .516 .657 .741 .530 .671 .759 "
    ".559 .694 .820",
    "sst/zero-shot/accuracy": "share .592 .616 .898 .873 .888 .907 .817 .820 .920 .812 .901 .900",
    "sst/few-shot/accuracy": "share .842 .930 .944 .909 .933 .936 .794 .880 .944 .838 .923 .938",
    "rte/zero-shot/accuracy": "share .527 .617 .563 .487 .516 .570 .480 .708 .704 .538 .657 .668",
    "rte/few-shot/accuracy": "share .585 .682 .614 .574 .657 .700 .606 .585 .711 .545 .697 .765",
    "wsc/zero-shot/accuracy": "share .567 .635 .740 .615 .606 .654 .663 .654 .683 .692 .587 .731",
    "wsc/few-shot/accuracy": "share .587 .654 .798 .615 .625 .779 .625 .596 .654 .644 .673 .788",
    "translation/zero-shot/bleu": "points 30.65 34.99 38.92 25.56 33.25 36.90 19.85 25.22 24.16 "
    "25.77 30.41 34.28",
    "translation/few-shot/bleu": "points 31.37 35.49 39.93 24.73 31.76 35.07 21.65 29.96 26.58 "
    "27.67 33.56 36.76",
    # printed under TLDR too, whose own figures are lost; of 100 here; with or without solved
    # examples is not said
    "cnn_dm/zero-shot/rouge_l": "points 18.2 19.7 19.6 19.8 23.5 22.5 21.8 23.1 22.7 "
    "21.4 23.1 22.0",
    "cnn_dm/few-shot/rouge_l": "points 18.2 19.7 19.6 19.8 23.5 22.5 21.8 23.1 22.7 21.4 23.1 22.0",
}
"""Table 14: task/setting/measure of `instil eval` -> its unit, then for each of `METHODS` the
figure of each of `SIZES`."""
