"""The people: what they label, and how good their labels are.

  quality.py      agreement between labelers, and the habits of each
  screening.py    the four measures by which labelers are chosen
  outcomes.py     win rates and strengths of policies

Those three are pure: records in, figures out. Nothing in this room loads torch.
"""
