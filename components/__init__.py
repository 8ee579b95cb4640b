"""The containerized steps of Tokiwa and the ground floor they stand on.

Each step is a folder with a pure ``core`` and a thin Kubeflow wrapper,
``component``. The modules beside them are shared by the steps; which may import
which is drawn in ``docs/architecture.md`` and checked by import-linter.
"""
