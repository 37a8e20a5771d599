"""The people: what they label, and how good their labels are.

  batch > task > seat > assignment > label

A batch, which a lead starts, has tasks: one prompt, its responses, one kind of work. A task has a
seat for every label that is wanted. An assignment is one labeler holding one seat for a while; a
label is one revision of what came of it. `schema.py` has them as tables, ARCHITECTURE.md the map.

`quality.py`, `panel.py`, `screening.py` and `outcomes.py` are pure: records in, figures out.
Nothing in this room loads torch.
"""
