"""How a challenger proves itself on real requests, and what came of it.

::

    config.py        section ``deploy.rollout``: stages and limits
    sequential.py    tests that may be looked at after every request
    observations.py  what was seen of both versions, as sums
    judgement.py     from what was seen to stay, pass or fail
    record.py        the rollout record in the store, and the one way to move it on
"""
