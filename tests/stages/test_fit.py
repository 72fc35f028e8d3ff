from pipeline.stages.fit import last_iteration_notes


def test_stopping_at_the_last_iteration_of_those_tried_is_remarked_upon():
    (note,) = last_iteration_notes({"stopping": "early", "iterations": 1000}, 1000)
    assert "raise solver.max_iterations" in note
    assert not last_iteration_notes({"stopping": "early", "iterations": 999}, 1000)
    assert not last_iteration_notes({"stopping": "converged", "iterations": 1000}, 1000)
