"""What runs and studies came to, computed from their records: usable in a script without any page."""

from kvar.results.choices import Choice, choices, leaders
from kvar.results.combined import combined_statistics
from kvar.results.compare import compare_methods, methods_frame, not_resolved_from_best
from kvar.results.outcomes import StudyValues, read_study_runs
from kvar.results.ranks import rank_table
from kvar.results.run_folders import find_runs, student_names, study_statistics
from kvar.results.study_cells import StudyCell, study_cells
from kvar.results.teachers import teacher_scores
from kvar.results.trained_estimators import estimator_table

__all__ = [
    "Choice",
    "StudyCell",
    "StudyValues",
    "choices",
    "combined_statistics",
    "compare_methods",
    "estimator_table",
    "find_runs",
    "leaders",
    "methods_frame",
    "not_resolved_from_best",
    "rank_table",
    "read_study_runs",
    "student_names",
    "study_cells",
    "study_statistics",
    "teacher_scores",
]
