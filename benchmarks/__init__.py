"""Every figure that the README quotes, measured beside its peer in the same run.

``python -m benchmarks`` runs all of them, ``python -m benchmarks.loop`` one; ``--quick``
takes less data, ``--json`` prints a list of figures for machines. A benchmark is a module
of this package with ``measure(quick)``, which returns figures, and ``show(figures)``,
which prints them; ``benchmarks.__main__`` lists the modules.
"""
