"""int8 that is allowed to ship: calibrate, measure on validation images, put layers back until every gate holds.

`options` is what the user decides, `data` reads and judges the sets, `runs` and `gates` measure, `search` finds the
fewest layers that have to stay in floating point, `race` times the alternatives, `receipt` writes down what was found
and `page` draws it. The arithmetic itself is in `edgekd.quantization`.
"""
