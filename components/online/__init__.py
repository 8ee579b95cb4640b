"""Between retrains: a linear head over the frozen champion that learns from every label."""
