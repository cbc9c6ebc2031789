"""Commands that work on a run or on the whole collection.

demo.py, explore.py, evaluate.py, describe.py, landscape.py, log_likelihood.py, twin.py,
benchmark.py, doctor.py and convert_weights.py are commands; --help describes each one.
`pages` holds the pages of demo.py, `judges` and `features` what evaluate.py measures
with, and `twins` the scripts' training steps in PyTorch.
"""
