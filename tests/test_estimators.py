"""The classifiers of examples/estimators.py are scikit-learn's kind, and learn."""

import pytest

pytest.importorskip("sklearn")


def test_they_learn_within_pipelines_and_cross_validation():
    from examples import estimators

    found = estimators.run()
    assert found["LinearClassifier"] > 0.9
    assert found["NetworkClassifier"] > found["LinearClassifier"]


@pytest.mark.parametrize("name", ["LinearClassifier", "NetworkClassifier"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks(name):
    from sklearn.utils.estimator_checks import check_estimator

    from examples import estimators

    check_estimator(getattr(estimators, name)())
