import numpy
import sklearn.cluster
import sklearn.ensemble
import sklearn.linear_model

rng = numpy.random.default_rng(1)
x = rng.random((200, 5))
y = x[:, 0] > 0.5
assert sklearn.ensemble.RandomForestClassifier(10, n_jobs=2, random_state=1).fit(x, y).score(x, y) > 0.9
sklearn.cluster.KMeans(3, n_init=2, random_state=1).fit(x)
sklearn.linear_model.LogisticRegression().fit(x, y)
