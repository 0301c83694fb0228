"""Latency as it is: the real `predict`, raw samples, and the state of the machine beside them.

`run` measures, `sensors` and `watch` look at clocks, temperatures, power and other load meanwhile, `validity` says
whether the run means anything, `record` is the JSON, `statistics` its figures, `page` and `charts` the page.
"""
