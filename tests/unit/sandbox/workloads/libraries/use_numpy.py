import numpy

rng = numpy.random.default_rng(1)
a = rng.random((400, 400))
assert numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(400))
numpy.linalg.svd(a[:100, :100])
numpy.fft.fft(a)
numpy.save(__import__("io").BytesIO(), a)
