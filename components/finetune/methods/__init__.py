"""Ways to fine-tune, one file each.

A method is a function ``fit(job) -> Outcome``: it says which stages learn for how many
epochs, and leaves the best epoch's weights.
"""

from components.finetune.methods import distill, full, gradual, head, lora, top

METHODS = {
    "head": head.fit,
    "top": top.fit,
    "gradual": gradual.fit,
    "full": full.fit,
    "lora": lora.fit,
    "distill": distill.fit,
}
"""Name to function. To add one: a file here, a line, and its name in ``FinetuneConfig``."""
