"""Whether memory grows over a run, and from what.

``verdicts`` judges recorded series and knows nothing of live objects. What looks at live objects stands beside it.
"""
