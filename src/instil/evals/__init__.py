"""One file per question asked of a policy; suite.py asks them all.

An eval says what is asked and how an answer is graded; sampling, batching and intervals are done
once, in policy.py.
"""
