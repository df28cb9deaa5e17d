"""What `das evaluate` runs: the scoring of a model, or of a predictions file.

Both have the same three steps: collect predictions (run the model on Ray, or read the file), score them
(``score_predictions``), write the report (``write_report``).
"""

from __future__ import annotations

from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.rescore import rescore
from pipeline.evaluation.result import EvaluationResult


def run_evaluation(config: EvaluateConfig) -> EvaluationResult:
    """Scores ``config.model`` or ``config.predictions``, on images annotated in 3D or in 2D only.

    Raises:
        ValueError: from ``evaluate`` or ``rescore``.
    """
    if config.predictions is not None:
        return rescore(config)
    # Ray takes seconds to import, and scores of a file need none of it.
    from pipeline.evaluation.evaluate import evaluate

    return evaluate(config)
