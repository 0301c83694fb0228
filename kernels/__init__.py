"""C and C++ kernels of edgekd, shipped with their sources; `edgekd.native` is their Python face."""
