"""Other people's ONNX detectors: their graph is read, and what their head means is written behind it as ONNX.

`foreign` reads a graph and puts its input in order, `batch` opens it for any number of images, `heads` says for each
head what it must look like and how it is decoded, `decoder` joins both. Nothing is guessed: a head whose shapes do not
fit is refused.
"""
