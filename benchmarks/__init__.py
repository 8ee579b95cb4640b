"""Every figure that the README quotes, measured beside its peer in the same run.

``python -m benchmarks`` runs all; ``--quick`` with less data, ``--json`` for machines.
A benchmark is a module of this package with ``measure(quick: bool) -> list[Figure]`` and
``show(figures)``, and a line in ``BENCHMARKS``; see ``benchmarks.figure``.
"""
