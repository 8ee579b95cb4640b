"""Ways to fine-tune, one file each.

A method is a function ``fit(classifier, train, valid, config, watcher) -> History``
that changes the classifier's weights in place and leaves the best epoch's there.
"""

from components.finetune.methods import full, head

METHODS = {"full": full.fit, "head": head.fit}
"""Name to function. To add one: a file here and a line."""
