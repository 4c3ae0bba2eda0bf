import numpy as np
from fgdiag_probes.discriminant import discriminate
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.probes.labelled import clouds, labelled


def test_scores_are_those_of_scikit_learn_where_images_are_many() -> None:
    features, fine, test = clouds(5, 300, 6, apart=0.8)
    labels = labelled(fine, test)
    scores = discriminate(features, labels, np.arange(len(labels.train)) % 3)
    peer = LinearDiscriminantAnalysis(priors=np.full(5, 0.2)).fit(features[labels.train], fine[labels.train])
    expected = peer.decision_function(features[labels.test])
    assert (scores.argmax(1) == expected.argmax(1)).mean() > 0.99
    ours, theirs = scores - scores.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_what_other_classes_teach_makes_a_faint_line_readable() -> None:
    rng = np.random.default_rng(0)
    fine = np.tile(np.arange(40), 15)
    features = 20 * rng.standard_normal((600, 8)) @ rng.standard_normal((8, 60))
    features[:, 0] += 6 * (fine % 2)
    features += 0.5 * rng.standard_normal(features.shape)
    labels = labelled(fine, np.repeat(np.arange(15) % 3 == 2, 40), kind_of=np.arange(40) // 2)
    scores = discriminate(features, labels, np.arange(len(labels.train)) % 3)
    truth = fine[labels.test]
    sibling = truth + 1 - 2 * (truth % 2)
    rows = np.arange(len(truth))
    assert (scores[rows, truth] > scores[rows, sibling]).mean() > 0.9
